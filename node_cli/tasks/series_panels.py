"""Series beside and below each other in one figure, each under a caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from node_cli.batch import Batch
from node_cli.series import MASK, TIMES, VALUES
from node_cli.tasks.image_grid import COLUMNS, DPI
from node_cli.tasks.labels import seen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CHANNELS = 10  # more lines in a panel are not told apart
WIDTH, HEIGHT = 1.3, 1.15  # of a panel, inches


class Panels(NamedTuple):
    """Series as they are drawn: `times` `(n, T)`, and scaled `values` `(n, T, C)`, NaN where nothing was seen."""

    times: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, batch: Batch) -> Panels:
        """Those of a batch."""
        shown = seen(batch)
        values = shown[VALUES].float().masked_fill(~shown[MASK], float("nan"))
        return cls(shown[TIMES].numpy(force=True), values.numpy(force=True))

    def picked(self, index: np.ndarray | slice) -> Panels:
        """Some of them."""
        return Panels(self.times[index], self.values[index])


def series_panels(panels: Panels, captions: Sequence[str], title: str, colour: str = "black") -> Figure:
    """Draws as many series as there are captions, all on one scale; a line for each channel."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    count, num_channels = len(captions), panels.values.shape[2]
    if num_channels > MOST_CHANNELS:
        title = f"{title} (channels 1 to {MOST_CHANNELS} of {num_channels})"
    if count < len(panels.times):
        title = f"{title} (the first {count})"
    times, values = panels.times[:count], panels.values[:count, :, :MOST_CHANNELS]
    columns = min(COLUMNS, max(count, 4))
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows + 0.5), dpi=DPI)
    figure.suptitle(title, fontsize=11)
    axes = figure.add_axes((0, 0, 1, 1 - 0.5 / (HEIGHT * rows + 0.5)))
    # One axes for all: a subplot for each series would take ten times as long.
    is_drawn = np.isfinite(values)
    low, high = (values[is_drawn].min(), values[is_drawn].max()) if is_drawn.any() else (0.0, 1.0)
    start, span = times[:, :1], np.ptp(times, axis=1, keepdims=True).max(initial=0.0) or 1.0
    place = np.arange(count)
    left, top = 1.0 * (place % columns) + 0.05, -1.0 * (place // columns)
    x = left[:, None] + 0.9 * (times - start) / span
    y = top[:, None, None] - 0.2 - 0.75 * (high - values) / ((high - low) or 1.0)
    for channel in range(values.shape[2]):
        lines = [np.stack([x[i], y[i, :, channel]], axis=1)[is_drawn[i, :, channel]] for i in range(count)]
        axes.add_collection(LineCollection(lines, colors=[colormaps["tab10"](channel)], linewidths=0.8))
        single = np.reshape([line for line in lines if len(line) == 1], (-1, 2))  # no line, and so a dot
        axes.scatter(single[:, 0], single[:, 1], s=4, color=colormaps["tab10"](channel))
    for caption, *where in zip(captions, left, top, strict=True):
        own: dict[str, Any] = {"color": colour, "fontsize": 8, "parse_math": False}
        axes.text(where[0] + 0.45, where[1] - 0.15, caption, ha="center", va="bottom", **own)
    axes.set(xlim=(0, columns), ylim=(-rows, 0))
    axes.axis("off")
    return figure
