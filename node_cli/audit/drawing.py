"""What the figures of all audits share: errors on two logarithmic scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from node_cli.figures import label_panel

MARKERS = "osD^v"
Curve = Sequence[tuple[float, float]]  # a tolerance or a cost, and the relative error


def hollow(index: int) -> dict[str, Any]:
    """A mark for one of several curves: larger and larger ones, so that what lies on top of each other shows."""
    place = index % len(MARKERS)
    return {"marker": MARKERS[place], "markersize": 4 + 2 * place, "markerfacecolor": "none"}


def draw_errors(axes: Axes, title: str, xlabel: str, curves: Mapping[str, Curve]) -> None:
    """Relative errors over a tolerance or a cost, both logarithmic; an error of zero has no place on them."""
    for index, (name, curve) in enumerate(curves.items()):
        points = sorted((x, error) for x, error in curve if 0 < error < np.inf)
        if points:
            axes.loglog(*zip(*points, strict=True), label=name, color=f"C{index}", **hollow(index))
    label_panel(axes, title, xlabel, "relative error")


def number_counts(axes: Axes) -> None:
    """Plain numbers along a logarithmic x axis of counts."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
