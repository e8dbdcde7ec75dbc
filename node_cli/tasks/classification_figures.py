"""Figures of a classification: what went in, and what came out wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from node_cli.batch import Batch
from node_cli.series import TIMES
from node_cli.tasks.image_grid import COLUMNS, DPI, ROWS, image_grid
from node_cli.tasks.series_panels import Panels, series_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COUNTED_CLASSES = 20  # with more, the numbers of a confusion matrix no longer fit their cells
MAX_TICKS = 25
WRONG_COLOUR = "#c62828"
NO_PREDICTION = -1  # in the place of a class index


def confusion_matrix(targets: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Count how often each class (rows) is taken for each class (columns); colours are fractions of a row.

    Args:
        targets: (n,) class indices.
        predictions: (n,) class indices, or NO_PREDICTION, which has no cell.
        class_names: a name for each class.
    """
    from matplotlib.colors import PowerNorm

    num_classes = len(class_names)
    given = predictions != NO_PREDICTION
    cells = (num_classes * targets + predictions)[given]
    counts = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, -1)
    fractions = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = float(np.clip(2.5 + 0.45 * num_classes, 4.0, 9.0))
    figure, axes = _figure(side, side)
    axes.imshow(fractions, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))  # so that rare mistakes show
    ticks = range(0, num_classes, -(-num_classes // MAX_TICKS))
    names = [class_names[tick] for tick in ticks]
    axes.set_xticks(ticks, names, parse_math=False)
    if max(map(len, names)) > 3:
        axes.tick_params("x", labelrotation=90)
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_xlabel("prediction")
    axes.set_ylabel("target")
    axes.set_title(f"{np.trace(counts)} of {len(targets)} right{_missing(predictions)}")
    if num_classes <= MAX_COUNTED_CLASSES:
        for row, column in np.argwhere(counts):
            colour = "white" if fractions[row, column] > 0.3 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    return figure


def drawn_of(batch: Batch) -> np.ndarray | Panels:
    """What figures show of the samples of a batch."""
    return Panels.of(batch) if TIMES in batch else batch["inputs"].numpy(force=True)


def sample_inputs(
    inputs: np.ndarray | Panels, targets: np.ndarray, class_names: Sequence[str], title: str = "sample inputs"
) -> Figure:
    """Show inputs under their class: of images and series the first few, points as a scatter.

    Args:
        inputs: (n, channels, height, width) images, series, or (n, ...) points, of which two coordinates are shown.
        targets: (n,) class indices.
        class_names: a name for each class.
        title: stands above them.
    """
    if isinstance(inputs, Panels) or inputs.ndim == 4:
        captions = [class_names[target] for target in targets[: ROWS * COLUMNS]]
        return _grid(inputs, captions, title, "black")
    figure, _ = _scatter(inputs, targets, class_names, title)
    return figure


def wrong_predictions(
    inputs: np.ndarray | Panels, targets: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Show the inputs whose prediction is wrong: under "target → prediction", or of points as crosses among all.

    Args:
        inputs: (n, channels, height, width) images, series, or (n, ...) points, of which two coordinates are shown.
        targets: (n,) class indices.
        predictions: (n,) class indices, or NO_PREDICTION.
        class_names: a name for each class.
    """
    wrong = np.flatnonzero(targets != predictions)
    title = f"{len(wrong)} of {len(targets)} predictions wrong{_missing(predictions)}"
    if isinstance(inputs, Panels) or inputs.ndim == 4:
        shown = wrong[: ROWS * COLUMNS]
        names = {NO_PREDICTION: "none", **dict(enumerate(class_names))}
        captions = [f"{names[targets[i]]} → {names[predictions[i]]}" for i in shown]
        return _grid(
            inputs.picked(wrong) if isinstance(inputs, Panels) else inputs[wrong], captions, title, WRONG_COLOUR
        )
    figure, axes = _scatter(inputs, targets, class_names, title)
    x, y = _plane(inputs[wrong])
    axes.scatter(x, y, marker="x", s=60, linewidths=2, color=WRONG_COLOUR)
    _legend(axes, [*class_names, "wrong"])
    return figure


def _grid(inputs: np.ndarray | Panels, captions: Sequence[str], title: str, colour: str) -> Figure:
    draw: Any = series_panels if isinstance(inputs, Panels) else image_grid
    figure: Figure = draw(inputs, captions, title, colour)
    return figure


def _missing(predictions: np.ndarray) -> str:
    count = np.count_nonzero(predictions == NO_PREDICTION)
    return f", {count} without a prediction" if count else ""


def _scatter(points: np.ndarray, targets: np.ndarray, class_names: Sequence[str], title: str) -> tuple[Figure, Axes]:
    from matplotlib import colormaps

    num_coordinates = points[0].size
    if num_coordinates > 2:
        title = f"{title} (coordinates 1 and 2 of {num_coordinates})"
    figure, axes = _figure(6.0, 5.0)
    colours = colormaps["tab10" if len(class_names) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    for index in range(len(class_names)):
        x, y = _plane(points[targets == index])
        axes.scatter(x, y, s=12, color=colours[index % len(colours)])
    axes.set_title(title, fontsize=11)
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)
    _legend(axes, class_names)
    return figure, axes


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """Beside the points, never upon them; names as they stand, whatever they begin with or hold."""
    num_columns = 1 + len(names) // 20
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False, "ncols": num_columns}
    legend = axes.legend(axes.collections, ["x"] * len(names), **place)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)


def _plane(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two coordinates, (n,) each; the second is zero where there is only one."""
    flat = points.reshape(len(points), int(np.prod(points.shape[1:])))
    return flat[:, 0], flat[:, 1] if flat.shape[1] > 1 else np.zeros(len(flat))


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots()
