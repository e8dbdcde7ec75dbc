"""What the pictures of all problems share: panels in a row, errors on two logarithmic scales, curves over time."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from node_cli.files import write_whole

MARKERS = "osD^v"  # hollow, and larger and larger: what lies on top of each other shows
Curve = tuple[Sequence[float], Sequence[float]]


def panels(title: str, count: int) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, up to three beside each other, four as a square."""
    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.6 * columns, 3.8 * rows), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=12)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for each in axes:
        each.grid(alpha=0.3)
    return figure, axes


def draw_errors(axes: Axes, title: str, xlabel: str, curves: Mapping[str, Curve]) -> None:
    """Relative errors over a tolerance or a cost, both logarithmic; an error of zero has no place on them."""
    for index, (label, (xs, errors)) in enumerate(curves.items()):
        points = sorted((x, error) for x, error in zip(xs, errors, strict=True) if 0 < error < np.inf)
        if points:
            marker, size = MARKERS[index % len(MARKERS)], 4 + 2 * (index % len(MARKERS))
            style = {"marker": marker, "markersize": size, "markerfacecolor": "none", "color": f"C{index}"}
            axes.loglog(*zip(*points, strict=True), label=label, **style)
    label_panel(axes, title, xlabel, "relative error")


def number_counts(axes: Axes) -> None:
    """Plain numbers along a logarithmic x axis of counts."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def label_panel(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """The words around a panel, and its legend where it has labelled curves."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def picture_array(figure: Figure) -> np.ndarray:
    """As `(height, width, 3)` uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def write_picture(picture: np.ndarray, path: Path) -> None:
    """As PNG; whole or not at all."""
    content = io.BytesIO()
    imsave(content, np.ascontiguousarray(picture), format="png")
    write_whole(path, content.getvalue())
