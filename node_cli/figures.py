"""What all figures share: panels in a grid, and the way to an array or to a file.

Figures are made of matplotlib's objects alone: pyplot keeps them in a global list, and looks for a screen.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

UNDATED: dict[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def panels(
    count: int, *, columns: int = 3, size: tuple[float, float] = (4.6, 3.8), title: str = ""
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of `size` (inches), up to `columns` beside each other."""
    from matplotlib.figure import Figure

    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=110, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12, parse_math=False)
    grid = figure.add_gridspec(rows, columns)
    axes = [figure.add_subplot(grid[divmod(number, columns)]) for number in range(count)]
    for each in axes:
        each.grid(alpha=0.3)
    return figure, axes


def label_panel(axes: Axes, title: str, xlabel: str, ylabel: str, *, legend: bool = True) -> None:
    """The words around a panel, shown as they stand, and, if wanted, a legend where it has labelled curves."""
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.set_xlabel(xlabel, parse_math=False)
    axes.set_ylabel(ylabel, parse_math=False)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def common_legend(figure: Figure, all_axes: Iterable[Axes], title: str = "") -> None:
    """One legend above all panels, of every label that any of them has."""
    named = {
        label: handle for axes in all_axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside upper center",
        ncols=len(named),
        frameon=False,
        fontsize=8,
        title=title,
        title_fontsize=8,
    )


def image_of(figure: Figure) -> np.ndarray:
    """The figure as an image: `(height, width, 3)`, uint8."""
    return np.asarray(_drawn(figure).buffer_rgba())[..., :3].copy()


def file_of(figure: Figure, ending: str = "png", **options: Any) -> bytes:
    """The content of a file: png, pdf or svg. The same figure gives the same bytes."""
    import matplotlib as mpl
    from matplotlib.image import imsave

    content = io.BytesIO()
    if ending == "png" and not options:  # the bytes that `savefig` writes, which would draw twice
        imsave(content, _drawn(figure).buffer_rgba(), format="png", dpi=figure.dpi)
        return content.getvalue()
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "node-cli"}):  # 42: journals refuse type 3
        figure.savefig(content, format=ending, metadata=UNDATED[ending], **options)
    return content.getvalue()


def _drawn(figure: Figure) -> FigureCanvasAgg:
    """Its pixels; a figure that has not changed since is not drawn again."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = figure.canvas
    if figure.stale or not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return canvas
