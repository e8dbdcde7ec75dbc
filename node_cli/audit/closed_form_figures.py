"""What problems with a closed form draw: z(t) and a(t), closed and computed, and the errors of the gradients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from node_cli.audit.closed_form import Results, over_time
from node_cli.audit.comparison import difference
from node_cli.audit.drawing import draw_errors, hollow, number_counts
from node_cli.figures import label_panel, panels


def draw_curves(title: str, results: Results) -> tuple[Figure, list[Axes]]:
    """z(t) and a(t), in closed form and as computed, in two panels."""
    figure, (states, adjoints) = panels(2, title=title)
    label_panel(states, "state z(t)", "t", "z")
    label_panel(adjoints, "adjoint a(t) = dL/dz(t)", "t", "a")
    draw_over_time(states, results.true.z, results.times, "closed form")
    draw_over_time(adjoints, results.true.a, results.times, "closed form")
    for index, each in enumerate(results.tightest):
        for axes, values in ((states, each.zs), (adjoints, each.adjoints)):
            for i, component in enumerate(values.T.tolist()):
                own = hollow(index) | {"color": f"C{i}", "label": None if i else each.case.method}
                axes.plot(results.times.tolist(), component, linestyle="", **own)
    return figure, [states, adjoints]


def draw_over_time(
    axes: Axes, function: Callable[[float], Tensor], ts: Tensor, name: str, linestyle: str = "-"
) -> None:
    """z(t) or a(t) as a line for each component, upright where it jumps at one of `ts`."""
    pieces = [np.linspace(start + 1e-9 * (end - start), end, 40) for start, end in pairwise(ts.tolist())]
    times = torch.tensor(np.concatenate(pieces))
    for i, component in enumerate(over_time(function, times).T.tolist()):
        color = f"C{i}" if linestyle == "-" else "0.5"
        axes.plot(times.tolist(), component, linestyle, color=color, label=None if i else name)


def add_legend(figure: Figure) -> None:
    """One legend for all panels, beside them."""
    labelled: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        labelled |= dict(zip(labels, handles, strict=True))
    figure.legend(list(labelled.values()), list(labelled), loc="outside right upper", frameon=False, fontsize=8)


def draw_gradient_errors(results: Results, by_rtol: Axes, by_nfe: Axes) -> None:
    """The error of all gradients together, over the tolerance and over the evaluations: a line for each method."""
    places = ((by_rtol, "rtol", lambda each: each.case.rtol), (by_nfe, "evaluations, both ways", lambda each: each.nfe))
    for axes, xlabel, place in places:
        curves: dict[str, list[tuple[float, float]]] = {each.case.method: [] for each in results.cases}
        for each in results.cases:
            if place(each) is not None:
                error = difference(each.gradients, results.true.gradients).relative_error
                curves[each.case.method].append((place(each), error))
        draw_errors(axes, "error of the gradients", xlabel, curves)
    number_counts(by_nfe)
