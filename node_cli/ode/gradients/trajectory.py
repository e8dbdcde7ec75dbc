"""What a solve leaves behind for its gradient: its accepted steps, and their states or their evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from node_cli.ode.compilation import StepFunctions
from node_cli.ode.gradients.binomial import ThinnedStates
from node_cli.ode.gradients.inputs import WatchedVectorField
from node_cli.ode.states import as_column
from node_cli.ode.stepping import Step
from node_cli.ode.tableaus import Tableau


class Point(NamedTuple):
    """One evaluation `dy = f(t, y)`; `y` is a leaf of its graph, `t` one too if times have gradients.

    `edge` is where the graph of `dy` begins, None if it has none: `dy` itself need not be kept. It is, as `slope`, if
    times have gradients: what the step made use of, an older slope for samples whose last step was refused.
    `is_watched` says whether it was one of those that found the inputs of the vector field.
    """

    t: Tensor
    y: Tensor
    edge: GradientEdge | None
    slope: Tensor | None
    is_watched: bool = False


@dataclass(frozen=True, eq=False)
class WholeStep:
    """A step from `y` that is run again and pulled back in one piece; `compare` gets the state at its end."""

    y: Tensor
    functions: StepFunctions
    compare: Callable[[Tensor], None]


Evaluations: TypeAlias = "list[Point] | WholeStep"  # of one step


class TapedVectorField:
    """A vector field that keeps the graph of each evaluation, apart from all others, in `points`."""

    def __init__(self, vector_field: WatchedVectorField, *, times_have_gradients: bool) -> None:
        self._vector_field = vector_field
        self._times_have_gradients = times_have_gradients
        self.points: list[Point] = []

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """The slope, detached."""
        is_watched = self._vector_field.is_watching
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            t = t.detach().requires_grad_(self._times_have_gradients)
            dy = self._vector_field(t, y)
            if dy.dtype != y.dtype and dy.shape == y.shape:
                dy = dy.to(y.dtype)
        slope: Tensor = dy.detach()
        edge = get_gradient_edge(dy) if dy.requires_grad else None
        kept = slope.clone() if self._times_have_gradients else None  # the field may write its next one there
        self.points.append(Point(t, y, edge, kept, is_watched))
        return slope


class Trajectory:
    """The accepted steps of one solve in order; of each the state that it started from, and what `tape` has of it.

    No more than `max_states` states are kept (None: all).
    """

    def __init__(self, tableau: Tableau, max_states: int | None, tape: TapedVectorField | None) -> None:
        self._tableau = tableau
        self._tape = tape
        self.steps: list[Step] = []
        self.states = ThinnedStates(max_states)
        self.points: dict[int, list[Point]] = {}

    def keep(self, step: Step, y: Tensor) -> None:
        """Adds a step; evaluations of attempts that were rejected are dropped from the tape."""
        if self._tape is not None:
            first, *others = self._tape.points
            others = others[len(others) - (self._tableau.num_stages - 1) :]
            self.points[len(self.steps)] = [first, *others]
            shared = [_shared(first, others[-1], step.accepted)] if self._tableau.is_fsal else []
            self._tape.points[:] = shared
        self.states.append(y)
        self.steps.append(step)


def _shared(first: Point, last: Point, moved: Tensor | None) -> Point:
    """The last evaluation of a step as the first one of the next."""
    if moved is None or last.slope is None or first.slope is None:
        return last
    return last._replace(slope=torch.where(as_column(moved, last.slope), last.slope, first.slope))
