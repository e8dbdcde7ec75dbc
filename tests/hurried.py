"""Without what takes half the time of a short run, and makes no difference to anything else in it.

`patch` is a `pytest.MonkeyPatch`, or `builtins` for as long as the process lives.
"""

from __future__ import annotations

import os
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

EXECUTE = ConstrainedLayoutEngine.execute
LAID_OUT: set[tuple[str, ...]] = set()  # the titles of the panels of figures


def no_sync(patch: Any) -> None:
    """What outlives a crash of the machine no test can see.

    `tests/test_files.py` holds that files are synced.
    """
    patch.setattr(os, "fsync", lambda descriptor: None)


def no_layout(patch: Any) -> None:
    """Nothing in a figure gives way to its neighbours: finding out how takes longer than to draw it."""
    patch.setattr(ConstrainedLayoutEngine, "execute", lambda engine, figure: None)


def one_layout(patch: Any) -> None:
    """The same but for figures of a kind that no earlier test, or command of a document, has laid out here."""
    known = frozenset(LAID_OUT)

    def execute(engine: ConstrainedLayoutEngine, figure: Figure) -> None:
        titles = tuple(axes.get_title() for axes in figure.axes)
        if titles not in known:
            LAID_OUT.add(titles)
            EXECUTE(engine, figure)

    patch.setattr(ConstrainedLayoutEngine, "execute", execute)
