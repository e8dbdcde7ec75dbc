"""What a model makes of points in the plane: where it draws the line, and where its ODE blocks carry the points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from node_cli.ode.block import SolvingModule, solving_modules
from node_cli.ode.solution import SolveError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID, ARROWS = 60, 14  # points a side
NUM_POINTS, NUM_TIMES = 60, 20  # of the trajectories
MARGIN = 0.1  # around the points, of their extent
MAX_BLOCKS = 3


def plane(model: nn.Module, inputs: Tensor, targets: Tensor, class_names: Sequence[str]) -> Figure:
    """Probabilities over the plane under the points of a split; the way of some points through each ODE block.

    Args:
        model: maps points to logits `(n, classes)`.
        inputs: (n, 2) points as the model sees them.
        targets: (n,) class indices.
        class_names: a name for each class.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    blocks = solving_modules(model)[:MAX_BLOCKS]
    figure = Figure(figsize=(4.2 * (1 + len(blocks)), 4.0), dpi=100, layout="constrained")
    first, *others = figure.subplots(1, 1 + len(blocks), squeeze=False)[0]
    palette = colormaps["tab10" if len(class_names) <= 10 else "tab20"]
    colours = np.array([palette(index % palette.N)[:3] for index in range(len(class_names))])
    of_points = colours[targets.numpy(force=True)]
    draw_panel(first, "decision boundary", partial(_boundary, first, model, inputs, of_points, colours))
    for number, (axes, block) in enumerate(zip(others, blocks, strict=True)):
        title = "trajectories" if len(blocks) == 1 else f"trajectories in block {number}"
        draw = partial(_trajectories, axes, model, block, inputs[:NUM_POINTS], of_points[:NUM_POINTS])
        draw_panel(axes, title, draw)
    return figure


def draw_panel(axes: Axes, title: str, draw: Callable[[], None]) -> None:
    """One panel. Where its solve fails it says so, and the others are drawn all the same."""
    axes.set_title(title, fontsize=11)
    try:
        draw()
    except SolveError:
        axes.text(0.5, 0.5, "the solve failed", ha="center", va="center", transform=axes.transAxes)


def _boundary(axes: Axes, model: nn.Module, inputs: Tensor, of_points: np.ndarray, colours: np.ndarray) -> None:
    grid, extent = grid_around(inputs, GRID)
    probabilities = model(grid).float().softmax(1).numpy(force=True)
    image = 1 - 0.6 * (1 - probabilities @ colours)  # paler than the points
    image = image.clip(0, 1).reshape(GRID, GRID, 3)
    axes.imshow(image, extent=extent, origin="lower", aspect="auto", interpolation="bilinear")
    x, y = inputs.numpy(force=True).T
    axes.scatter(x, y, s=6, c=of_points, edgecolors="black", linewidths=0.2)


def _trajectories(axes: Axes, model: nn.Module, block: SolvingModule, inputs: Tensor, of_points: np.ndarray) -> None:
    """In the first two coordinates of the state, over the vector field at the start where there are no others."""
    starts: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda module, given: starts.append(given[0]))
    try:
        model(inputs)
    finally:
        handle.remove()
    if not starts or starts[0].dim() != 2 or starts[0].shape[1] < 2:
        axes.text(0.5, 0.5, "its states are not points", ha="center", va="center", transform=axes.transAxes)
        return
    t0, t1 = block.ts.detach()[[0, -1]]
    ts = t0 + (t1 - t0) * torch.linspace(0, 1, NUM_TIMES, dtype=t0.dtype, device=t0.device)
    ys = block.solve(starts[0], ts).ys
    if ys.shape[2] == 2:
        grid, _ = grid_around(ys.flatten(0, 1), ARROWS)
        x, y = grid.numpy(force=True).T
        u, v = block.vector_field(t0.to(grid.dtype), grid).float().numpy(force=True).T
        axes.quiver(x, y, u, v, angles="xy", color="0.75", width=0.003)
    x, y = ys[..., :2].float().numpy(force=True).transpose(2, 0, 1)
    for line, colour in zip(range(x.shape[1]), of_points, strict=True):
        axes.plot(x[:, line], y[:, line], color=colour, linewidth=0.8)
    axes.scatter(x[-1], y[-1], s=8, c=of_points)
    if ys.shape[2] > 2:
        axes.set_xlabel(f"coordinates 1 and 2 of {ys.shape[2]}", fontsize=9)


def grid_around(points: Tensor, side: int, margin: float = MARGIN) -> tuple[Tensor, tuple[float, float, float, float]]:
    """`side` times `side` points `(side^2, 2)` around these, row by row from below, and their extent.

    `margin` is how far they reach beyond these on each side, in units of their extent.
    """
    low, high = points.amin(0), points.amax(0)
    beyond = margin * (high - low).clamp(min=1e-3)
    (left, bottom), (right, top) = (low - beyond).tolist(), (high + beyond).tolist()
    x = torch.linspace(left, right, side, dtype=points.dtype, device=points.device)
    y = torch.linspace(bottom, top, side, dtype=points.dtype, device=points.device)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten()], dim=1), (left, right, bottom, top)
