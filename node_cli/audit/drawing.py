"""What the figures of all audits share: errors on two logarithmic scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from node_cli.figures import label_panel

MARKERS = "osD^v"  # hollow, and larger and larger: what lies on top of each other shows
Curve = tuple[Sequence[float], Sequence[float]]


def draw_errors(axes: Axes, title: str, xlabel: str, curves: Mapping[str, Curve]) -> None:
    """Relative errors over a tolerance or a cost, both logarithmic; an error of zero has no place on them."""
    for index, (name, (xs, errors)) in enumerate(curves.items()):
        points = sorted((x, error) for x, error in zip(xs, errors, strict=True) if 0 < error < np.inf)
        if points:
            marker, size = MARKERS[index % len(MARKERS)], 4 + 2 * (index % len(MARKERS))
            style = {"marker": marker, "markersize": size, "markerfacecolor": "none", "color": f"C{index}"}
            axes.loglog(*zip(*points, strict=True), label=name, **style)
    label_panel(axes, title, xlabel, "relative error")


def number_counts(axes: Axes) -> None:
    """Plain numbers along a logarithmic x axis of counts."""
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
