"""What problems with a closed form draw: z(t) and a(t), closed and computed, and the errors of the gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from node_cli.audit.closed_form import ClosedForm, Measured, over_time
from node_cli.audit.comparison import difference
from node_cli.audit.drawing import MARKERS, draw_errors, number_counts
from node_cli.figures import label_panel, panels


def draw_curves(
    title: str, true: ClosedForm, measured: Sequence[Measured], times: Tensor
) -> tuple[Figure, tuple[Axes, Axes]]:
    """z(t) and a(t), in closed form and as measured at `times`, in two panels."""
    figure, (states, adjoints) = panels(2, title=title)
    label_panel(states, "state z(t)", "t", "z")
    draw_over_time(states, true.z, times, "closed form")
    _draw_computed(states, times, {each.case.method: each.zs for each in measured})
    label_panel(adjoints, "adjoint a(t) = dL/dz(t)", "t", "a")
    draw_over_time(adjoints, true.a, times, "closed form")
    _draw_computed(adjoints, times, {each.case.method: each.adjoints for each in measured})
    return figure, (states, adjoints)


def add_legend(figure: Figure) -> None:
    """One legend for all panels, beside them."""
    labelled: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        labelled |= dict(zip(labels, handles, strict=True))
    figure.legend(list(labelled.values()), list(labelled), loc="outside right upper", frameon=False, fontsize=8)


def draw_both_errors(by_rtol: Axes, by_nfe: Axes, true: ClosedForm, measured: Sequence[Measured]) -> None:
    """The error of all gradients together, over the tolerance and over the evaluations: a line for each method."""
    tolerances: dict[str, list[tuple[float, float]]] = {each.case.method: [] for each in measured}
    evaluations: dict[str, list[tuple[float, float]]] = {each.case.method: [] for each in measured}
    for each in measured:
        error = difference(each.gradients, true.gradients).relative_error
        evaluations[each.case.method].append((each.nfe_forward + each.nfe_backward, error))
        if each.case.rtol is not None:
            tolerances[each.case.method].append((each.case.rtol, error))
    for axes, xlabel, curves in ((by_rtol, "rtol", tolerances), (by_nfe, "evaluations, both ways", evaluations)):
        split = {label: ([x for x, _ in points], [error for _, error in points]) for label, points in curves.items()}
        draw_errors(axes, "error of the gradients", xlabel, split)
    number_counts(by_nfe)


def draw_over_time(
    axes: Axes, function: Callable[[float], Tensor], ts: Tensor, label: str | None = None, linestyle: str = "-"
) -> None:
    """z(t) or a(t) as a line for each component, upright where it jumps at one of `ts`."""
    ends = ts.tolist()
    pieces = [np.linspace(start + 1e-9 * (end - start), end, 40) for start, end in pairwise(ends)]
    times = torch.tensor(np.concatenate(pieces))
    for i, component in enumerate(over_time(function, times).T.tolist()):
        color = f"C{i}" if linestyle == "-" else "0.5"
        axes.plot(times.tolist(), component, linestyle, color=color, label=None if i else label)


def _draw_computed(axes: Axes, times: Tensor, values: Mapping[str, Tensor]) -> None:
    """What methods computed at `times`, `(times, d)` each, as hollow marks that lie around each other."""
    for index, (label, of_method) in enumerate(values.items()):
        marker, size = MARKERS[index % len(MARKERS)], 4 + 2 * (index % len(MARKERS))
        for i, component in enumerate(of_method.T.tolist()):
            name = None if i else label
            axes.plot(times.tolist(), component, marker, color=f"C{i}", markersize=size, fillstyle="none", label=name)
