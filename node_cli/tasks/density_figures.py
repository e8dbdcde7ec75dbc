"""Figures of a density: its map, samples of it beside the data, and the paths that they took."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from node_cli.figures import label_panel, panels
from node_cli.tasks.image_grid import COLUMNS, ROWS, image_grid
from node_cli.tasks.plane_figures import draw_panel, grid_around

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LogProb = Callable[[Tensor], Tensor]
SIDE, FINE_SIDE = 80, 200  # points of a grid for a map, and for an integral
MARGIN, WIDE_MARGIN = 0.2, 0.5  # around the data, of their extent
CHUNK = 4096  # points at once
MAX_POINTS, MAX_PATHS = 1_000, 100
MAX_COORDINATES = 4
NUM_BINS = 40
SIZE = (4.2, 4.0)  # inches of a panel
DATA_COLOUR, SAMPLE_COLOUR = "0.55", "#c62828"


def density_figures(
    log_prob: LogProb | None,
    samples: Tensor,
    data: Tensor,
    paths: Tensor | None = None,
    image_shape: tuple[int, ...] | None = None,
    names: Sequence[str] = (),
) -> Mapping[str, Figure]:
    """Figures by name: `density` of points in one or two dimensions, else `samples`.

    Args:
        log_prob: log-densities `(n,)` in nats of points `(n, d)`, on the device of the data; None: they are not known.
        samples: `(n, d)` points, or images `(n, c, h, w)`, in the user's units as all others.
        data: likewise.
        paths: `(T, n, 2)`, from the base to samples, in the plane.
        image_shape: `(c, h, w)` of images; None: they are points.
        names: of coordinates, if they have any.
    """
    if image_shape is not None:
        images = samples.reshape(-1, *image_shape)[: ROWS * COLUMNS].numpy(force=True)
        return {"samples": image_grid(images, [""] * len(images), "samples")}
    dim = data.shape[1]
    labels = list(names) or [f"coordinate {number + 1}" for number in range(dim)]
    if dim == 1 and log_prob is not None:
        return {"density": _line(log_prob, samples, data, labels[0])}
    if dim == 2:
        return {"density": _plane(log_prob, samples, data, paths, labels)}
    return {"samples": _pairs(samples, data, labels)}


def integral(log_prob: LogProb, data: Tensor) -> float:
    """The integral of a density over the part of the plane where the data `(n, 2)` lie, and half as far beyond: 1.

    It is a sum over a grid of 200 by 200 points, so that the density must be smooth over a 100th of the data's extent.
    """
    grid, extent = grid_around(data, FINE_SIDE, WIDE_MARGIN)
    return _mass(_log_probs(log_prob, grid), extent, FINE_SIDE)


def _mass(log_probs: Tensor, extent: tuple[float, float, float, float], side: int) -> float:
    left, right, bottom, top = extent
    return log_probs.double().exp().sum().item() * (right - left) * (top - bottom) / (side - 1) ** 2


def _log_probs(log_prob: LogProb, points: Tensor) -> Tensor:
    return torch.cat([log_prob(part) for part in points.split(CHUNK)])


def _plane(
    log_prob: LogProb | None, samples: Tensor, data: Tensor, paths: Tensor | None, labels: Sequence[str]
) -> Figure:
    figure, panels_left = panels((log_prob is not None) + 1 + (paths is not None), size=SIZE)
    axes = iter(panels_left)
    if log_prob is not None:
        mapped = next(axes)
        draw_panel(mapped, "density", partial(_map, mapped, log_prob, data))
        mapped.set(xlabel=labels[0], ylabel=labels[1])
    compared = next(axes)
    _scatter(compared, data, DATA_COLOUR, "data")
    _scatter(compared, samples, SAMPLE_COLOUR, "samples")
    label_panel(compared, "samples and data", *labels)
    _, (left, right, bottom, top) = grid_around(data, 2, MARGIN)
    compared.set(xlim=(left, right), ylim=(bottom, top))
    if paths is not None:
        followed = next(axes)
        x, y = paths[:, :MAX_PATHS].float().numpy(force=True).transpose(2, 0, 1)
        followed.plot(x, y, color="0.6", linewidth=0.6)
        followed.scatter(x[0], y[0], s=8, color="black", label="base")
        followed.scatter(x[-1], y[-1], s=8, color=SAMPLE_COLOUR, label="samples")
        label_panel(followed, "paths", *labels)
    return figure


def _map(axes: Axes, log_prob: LogProb, data: Tensor) -> None:
    from matplotlib.colors import PowerNorm

    grid, extent = grid_around(data, SIDE, MARGIN)
    log_probs = _log_probs(log_prob, grid)
    density = log_probs.float().exp().view(SIDE, SIDE).numpy(force=True)
    norm = PowerNorm(0.5, vmin=0, vmax=float(density.max()) or 1.0)  # so that thin tails show
    axes.imshow(density, extent=extent, origin="lower", aspect="auto", cmap="Blues", norm=norm)
    axes.grid(visible=False)
    _scatter(axes, data, "black", "data", size=0.5)
    axes.set(xlim=extent[:2], ylim=extent[2:], title=f"density, integral {_mass(log_probs, extent, SIDE):.3f}")


def _line(log_prob: LogProb, samples: Tensor, data: Tensor, label: str) -> Figure:
    figure, (axes,) = panels(1)
    low, high = data.amin(), data.amax()
    margin = MARGIN * (high - low).clamp(min=1e-3)
    x = torch.linspace(float(low - margin), float(high + margin), FINE_SIDE, dtype=data.dtype, device=data.device)
    edges = torch.linspace(float(x[0]), float(x[-1]), NUM_BINS + 1).tolist()
    for values, colour, name in ((data, DATA_COLOUR, "data"), (samples, SAMPLE_COLOUR, "samples")):
        flat = values[:, 0].float().numpy(force=True)
        axes.hist(flat, edges, density=True, histtype="step", color=colour, label=name)
    draw_panel(axes, "density", lambda: _curve(axes, x, _log_probs(log_prob, x[:, None])))
    label_panel(axes, "density", label, "density")
    return figure


def _curve(axes: Axes, x: Tensor, log_probs: Tensor) -> None:
    axes.plot(x.numpy(force=True), log_probs.float().exp().numpy(force=True), color="black", label="density")


def _pairs(samples: Tensor, data: Tensor, labels: Sequence[str]) -> Figure:
    """The first coordinates, two at a time."""
    pairs = list(combinations(range(min(MAX_COORDINATES, data.shape[1])), 2))
    figure, axes = panels(len(pairs), size=SIZE)
    for each, pair in zip(axes, pairs, strict=True):
        _scatter(each, data[:, pair], DATA_COLOUR, "data")
        _scatter(each, samples[:, pair], SAMPLE_COLOUR, "samples")
        label_panel(each, "", *(labels[number] for number in pair), legend=each is axes[0])
    return figure


def _scatter(axes: Axes, points: Tensor, colour: str, label: str, size: float = 3.0) -> None:
    x, y = points[:MAX_POINTS].float().numpy(force=True).T
    axes.scatter(x, y, s=size, color=colour, linewidths=0, label=label)
