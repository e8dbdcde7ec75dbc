"""How far computed gradients are from true ones, in numbers and in figures, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from node_cli.figures import label_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Gradients = Mapping[str, Tensor]  # by the name of what they are for; float64, on the CPU

SMALL = 1e-3  # errors of gradients below this fraction of the whole are relative to it: zero has no relative error
MARKERS = "osD^v"
Curve = Sequence[tuple[float, float]]  # a tolerance or a cost, and the relative error
SURELY = 0.2  # a known mistake is named if it explains all but this fraction of the error


@dataclass(frozen=True)
class Difference:
    """Computed gradients beside true ones, taken as one vector each.

    `worst` is the name of the worst one alone, with its error relative to its own norm or to `SMALL` of the norm of
    all, whichever is larger, and its true norm.
    """

    relative_error: float
    cosine: float
    worst: str
    worst_error: float
    worst_norm: float


def difference(computed: Gradients, true: Gradients) -> Difference:
    """The distance of `computed` from `true`; both hold the same names.

    A true gradient of zero is met exactly (error 0, cosine 1) or not at all (infinity, 0).
    """
    whole, alone = norm(true), errors_alone(computed, true)
    worst = max(alone, key=lambda name: alone[name])
    total = _distance(computed, true)
    product = sum(float((computed[name] * true[name]).sum()) for name in true)
    lengths = whole * norm(computed)
    cosine = product / lengths if lengths else float(total == 0)
    return Difference(_ratio(total, whole), cosine, worst, alone[worst], norm({worst: true[worst]}))


def errors_alone(computed: Gradients, true: Gradients) -> dict[str, float]:
    """The error of each gradient, relative to its own norm or to `SMALL` of the norm of all, whichever is larger."""
    assert computed.keys() == true.keys()
    whole = norm(true)
    errors = {name: norm({name: computed[name] - true[name]}) for name in true}
    return {name: _ratio(error, max(norm({name: true[name]}), SMALL * whole)) for name, error in errors.items()}


def norm(gradients: Gradients) -> float:
    """The Euclidean norm of all of them together."""
    return float(torch.stack([g.double().norm() for g in gradients.values()]).norm())


def what_is_wrong(computed: Gradients, true: Gradients, mistakes: Mapping[str, Gradients]) -> str:
    """The mistake that explains the error of `computed`, as a clause; empty if none does.

    `mistakes` are the gradients that known mistakes would give, by the clause that names each. Missing gradients and
    those of the wrong sign are always recognised.
    """
    explained = {clause for clause, wrong in mistakes.items() if _explains(wrong, computed, true)}
    if explained:
        return min(explained, key=lambda clause: _distance(computed, mistakes[clause]))
    missing = [name for name in true if not computed[name].any() and norm({name: true[name]}) > SMALL * norm(true)]
    if missing:
        return f"{' and '.join(missing)} {'gets' if len(missing) == 1 else 'get'} no gradient"
    negated = {name: -gradient for name, gradient in true.items()}
    return "its sign is wrong throughout" if _explains(negated, computed, true) else ""


def order(steps: Sequence[float], errors: Sequence[float]) -> float:
    """How fast errors fall with growing numbers of steps, by regression over the finer half of them."""
    half = len(steps) // 2
    return -float(np.polyfit(np.log(steps[half:]), np.log(errors[half:]), 1)[0])


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
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _explains(wrong: Gradients, computed: Gradients, true: Gradients) -> bool:
    return _distance(computed, wrong) < SURELY * _distance(computed, true)


def _distance(one: Gradients, other: Gradients) -> float:
    return norm({name: one[name] - other[name] for name in other})


def _ratio(part: float, whole: float) -> float:
    if part == 0:
        return 0.0
    return part / whole if whole else float("inf")
