"""Without what takes half the time of a short run, and makes no difference to anything else in it.

`patch` is a `pytest.MonkeyPatch`, or `builtins` for as long as the process lives.
"""

from __future__ import annotations

import os
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

DRAW = FigureCanvasAgg.draw
EXECUTE = ConstrainedLayoutEngine.execute
DRAWN: set[tuple[str, ...]] = set()  # the titles of the panels of figures


def no_sync(patch: Any) -> None:
    """What outlives a crash of the machine no test can see.

    `tests/test_files.py` holds that files are synced.
    """
    patch.setattr(os, "fsync", lambda descriptor: None)


def no_drawing(patch: Any) -> None:
    """Figures are made, laid out by nobody, and stay blank as images: these take longer than anything else in them."""
    patch.setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)
    patch.setattr(FigureCanvasAgg, "draw", lambda canvas: draw_what_is_saved(canvas, is_known=True))


def one_drawing(patch: Any) -> None:
    """The same but for figures of a kind that no earlier test, or command of a document, has drawn here."""
    known = frozenset(DRAWN)

    def execute(engine: ConstrainedLayoutEngine, figure: Figure) -> None:
        if titles_of(figure) not in known:
            EXECUTE(engine, figure)
            DRAWN.add(titles_of(figure))

    def draw(canvas: FigureCanvasAgg) -> None:
        draw_what_is_saved(canvas, is_known=titles_of(canvas.figure) in known)

    patch.setattr(ConstrainedLayoutEngine, "execute", execute)
    patch.setattr(FigureCanvasAgg, "draw", draw)


def titles_of(figure: Figure) -> tuple[str, ...]:
    return tuple(axes.get_title() for axes in figure.axes)


def draw_what_is_saved(canvas: FigureCanvasAgg, *, is_known: bool) -> None:
    """And what is not known: matplotlib's own `savefig` takes its size from drawing."""
    if is_known and not canvas.is_saving():
        canvas.get_renderer()
    else:
        DRAW(canvas)
