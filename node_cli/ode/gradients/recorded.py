"""Discretise, then optimise: the exact gradient of the steps that a solve made, from a record of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.compilation import StepFunctions
from node_cli.ode.gradients.binomial import ThinnedStates
from node_cli.ode.gradients.inputs import WatchedVectorField
from node_cli.ode.gradients.known import KnownInputs
from node_cli.ode.gradients.pullback import Pullback
from node_cli.ode.gradients.replay import replay
from node_cli.ode.gradients.same_field import Comparison, is_repeatable, refuse_changed, restored
from node_cli.ode.gradients.trajectory import Evaluations, Point, TapedVectorField, WholeStep
from node_cli.ode.solution import SolveStats
from node_cli.ode.states import as_column, outside_autocast
from node_cli.ode.stepping import Slope, Step, Stepper
from node_cli.ode.tableaus import Array, Tableau


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordedSolve:
    """A finished solve that can be gone through again, backwards.

    `states` are those that the steps start from, and `end` is the one that they lead to. `points` are the evaluations
    of the steps that need not be run again, `precision` is the rounding of the vector field, `is_compiled` says whether
    it is compiled, for which other kernels are made where it has a graph.
    """

    tableau: Tableau
    vector_field: WatchedVectorField
    ts: Array  # `(times,)`, or `(batch, times)` if each sample has its own steps
    steps: list[Step]
    states: ThinnedStates
    end: Tensor
    with_times: bool
    precision: float
    is_compiled: bool
    points: dict[int, list[Point]] = field(default_factory=dict)
    compiled: StepFunctions | None = None
    backward_stats: SolveStats = field(default_factory=SolveStats)

    def backwards(self) -> Iterator[tuple[int, Evaluations]]:
        """The steps in reverse order, each with its evaluations, which serve once; after that the step is run again.

        Raises:
            ValueError: in the end, if steps were run again and were others.
        """
        comparison, end = Comparison(self.precision), self.end
        for n, y in self.states.backwards(self.advance):
            yield n, self.points.pop(n, []) or self._rerun(n, y, end, comparison)
            end = y
        self._require_same(comparison)

    def require_same_field(self) -> None:
        """Runs every step again.

        Raises:
            ValueError: they are others.
        """
        comparison, end = Comparison(self.precision), self.end
        for n, y in self.states.backwards(self.advance):
            if self.compiled is None:
                self._rerun(n, y, end, comparison)
            else:
                comparison.add(n, self.advance(n, y), end)
            end = y
        self._require_same(comparison)

    def advance(self, n: int, y: Tensor) -> Tensor:
        """The state after step n, made once more from its state `y`."""
        y1 = self._step(n, y, self.vector_field, first=self.vector_field.like_first if n == 0 else None)
        self.backward_stats.nfe += self.tableau.num_stages - self.tableau.is_fsal
        return self._after(n, y, y1)

    def _rerun(self, n: int, y: Tensor, end: Tensor, comparison: Comparison) -> Evaluations:
        """The evaluations of step n, made once more from its state `y`, with their graphs."""
        has_last_stage = n == len(self.steps) - 1 and len(self.steps[n].inside) > 0
        if self.compiled is not None:
            own = self.tableau.num_stages - self.tableau.is_fsal
            self.backward_stats.nfe += own + (self.tableau.is_fsal and len(self.steps[n].inside) > 0)
            return WholeStep(y, self.compiled, lambda y1: comparison.add(n, self._after(n, y, y1), end))
        tape = TapedVectorField(self.vector_field, times_have_gradients=self.with_times)
        y1 = self._step(n, y, tape, with_last_stage=has_last_stage)
        self.backward_stats.nfe += len(tape.points)
        comparison.add(n, self._after(n, y, y1), end)
        return tape.points

    def _after(self, n: int, y: Tensor, y1: Tensor) -> Tensor:
        accepted = self.steps[n].accepted
        return y1 if accepted is None else torch.where(as_column(accepted, y), y1, y)

    def _require_same(self, comparison: Comparison) -> None:
        worst = comparison.worst()
        if worst is None:
            return
        n, difference = worst
        t = float(np.min(self.steps[n].t0))
        if self.is_compiled:
            if not difference.is_from_compiling(self.end.device):
                refuse_changed(t)
            return
        if not difference.is_small:
            refuse_changed(t)
        end = self.end
        for m, y in self.states.backwards(self.advance):
            # With a graph, torch takes other kernels for some modules; without one, as in the solve, the same.
            if m == n and not is_repeatable(end, partial(self.advance, n, y), self.precision):
                refuse_changed(t)
            end = y

    def _step(
        self, n: int, y: Tensor, slope: Slope, *, first: Slope | None = None, with_last_stage: bool = False
    ) -> Tensor:
        stepper, step = Stepper(self.tableau, first or slope, y), self.steps[n]
        with torch.no_grad():
            stepper.start(step.t0, y)
            stepper.slope = slope
            return stepper.step(step.t0, step.t1, y, with_last_stage=with_last_stage)


def attach(solve: RecordedSolve, ys: Tensor, y0: Tensor, ts: Tensor, *, twice: bool) -> Tensor:
    """`ys` with a gradient for `y0`, `ts` and all inputs of the vector field; with `twice`, second derivatives too.

    Raises:
        RuntimeError: in the backward pass, when a second derivative is asked for without `twice`.
    """
    attached: Tensor = _Attached.apply(solve, twice, ys, y0, ts, *solve.vector_field.inputs)
    return attached


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, solve: RecordedSolve, twice: bool, ys: Tensor, y0: Tensor, ts: Tensor, *inputs: Tensor
    ) -> Tensor:
        ctx.solve, ctx.twice = solve, twice
        ctx.save_for_backward(y0, ts, *inputs)
        return ys.view_as(ys)

    @staticmethod
    def backward(ctx: Any, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[3:]
        with restored(ctx.solve.vector_field.written):
            if torch.is_grad_enabled():
                refuse_second_derivative(ctx.twice)
                grads = _replayed_gradients(ctx.solve, ctx.saved_tensors, needed, grad_ys)
            else:
                grads = _pulled_gradients(ctx.solve, ctx.saved_tensors, needed, grad_ys)
        return None, None, None, *grads


def _pulled_gradients(
    solve: RecordedSolve, saved: tuple[Tensor, ...], needed: tuple[bool, ...], grad_ys: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of y0, ts and the inputs, None where none is needed."""
    _, ts, *inputs = saved
    needs_y0, needs_ts, *needs_inputs = needed
    leaves = tuple(inputs) if solve.compiled else solve.vector_field.leaves
    wanted = list(itertools.compress(leaves, needs_inputs))
    with outside_autocast(grad_ys.device.type):
        known = KnownInputs(leaves, solve.vector_field.replaced, solve.vector_field.side)
        pullback = Pullback(solve.tableau, wanted, known, solve.ts, grad_ys, with_times=needs_ts)
        for n, evaluations in solve.backwards():
            pullback.step(solve.steps[n], evaluations)
        pullback.finish(next(iter(solve.steps), None))
    found = iter(pullback.grad_inputs)
    grad_ts = None if pullback.grad_ts is None else pullback.grad_ts.to(ts.dtype)
    grad_y0 = pullback.grad_y if needs_y0 else None
    return (grad_y0, grad_ts, *(next(found) if is_needed else None for is_needed in needs_inputs))


def _replayed_gradients(
    solve: RecordedSolve, saved: tuple[Tensor, ...], needed: tuple[bool, ...], grad_ys: Tensor
) -> tuple[Tensor | None, ...]:
    """The same with a graph of their own."""
    with outside_autocast(grad_ys.device.type), torch.no_grad():
        solve.require_same_field()
    # A view of each, so that no gradient runs on from one of them into another that it was computed from.
    y0, ts, *inputs = views = [tensor.view_as(tensor) for tensor in saved]
    vector_field = solve.vector_field.with_inputs(inputs)
    ys = replay(solve.tableau, vector_field, solve.steps, y0, ts)
    wanted = list(itertools.compress(views, needed))
    found = iter(torch.autograd.grad(ys, wanted, grad_ys, create_graph=True, allow_unused=True))
    return tuple(next(found) if is_needed else None for is_needed in needed)


def refuse_second_derivative(allowed: bool) -> None:
    """Raises RuntimeError unless second derivatives are there."""
    if not allowed:
        raise RuntimeError(
            'second derivatives (create_graph=True) need gradient="direct": the other gradients have none'
        )
