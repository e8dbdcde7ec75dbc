"""Discretise, then optimise: the exact gradient of the steps that a solve made, from a record of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.compilation import StepFunctions
from node_cli.ode.gradients.inputs import KnownInputs, WatchedVectorField
from node_cli.ode.gradients.pullback import Pullback
from node_cli.ode.gradients.random_state import refuse_random
from node_cli.ode.gradients.replay import replay
from node_cli.ode.gradients.trajectory import Evaluations, TapedVectorField, WholeStep
from node_cli.ode.solution import SolveStats
from node_cli.ode.states import outside_autocast
from node_cli.ode.stepping import Slope, Step, Stepper, as_column
from node_cli.ode.tableaus import Tableau


@dataclass(frozen=True, eq=False)
class RecordedSolve:
    """A finished solve that can be gone through again, backwards."""

    tableau: Tableau
    vector_field: WatchedVectorField
    ts: list[float]
    steps: list[Step]
    with_times: bool
    is_random: bool
    compiled: StepFunctions | None = None
    backward_stats: SolveStats = field(default_factory=SolveStats)

    def rerun(self, n: int, y: Tensor) -> Evaluations:
        """The evaluations of step n, made once more from its state `y`, with their graphs.

        Raises:
            ValueError: they would be others, because the vector field draws random numbers.
        """
        refuse_random(self.is_random)
        if self.compiled is not None:
            own = self.tableau.num_stages - self.tableau.is_fsal
            self.backward_stats.nfe += own + (self.tableau.is_fsal and bool(self.steps[n].inside))
            return WholeStep(y, self.compiled)
        tape = TapedVectorField(self.vector_field, times_have_gradients=self.with_times)
        is_last = n == len(self.steps) - 1
        self._step(n, y, tape, with_last_stage=is_last and bool(self.steps[n].inside))
        self.backward_stats.nfe += len(tape.points)
        return tape.points

    def advance(self, n: int, y: Tensor) -> Tensor:
        """The state after step n, made once more from its state `y`."""
        y1 = self._step(n, y, self.vector_field, with_last_stage=False)
        self.backward_stats.nfe += self.tableau.num_stages - self.tableau.is_fsal
        accepted = self.steps[n].accepted
        return y1 if accepted is None else torch.where(as_column(accepted, y), y1, y)

    def _step(self, n: int, y: Tensor, slope: Slope, *, with_last_stage: bool) -> Tensor:
        stepper, step = Stepper(self.tableau, slope, y), self.steps[n]
        with torch.no_grad():
            stepper.start(step.t0, y)
            return stepper.step(step.t0, step.t1, y, with_last_stage=with_last_stage)


Walk = Callable[[], Iterator[tuple[int, Evaluations]]]  # the steps in reverse order, each with its evaluations


def attach(solve: RecordedSolve, walk: Walk, ys: Tensor, y0: Tensor, ts: Tensor, *, twice: bool) -> Tensor:
    """`ys` with a gradient for `y0`, `ts` and all inputs of the vector field; with `twice`, second derivatives too.

    Raises:
        RuntimeError: in the backward pass, when a second derivative is asked for without `twice`.
    """
    attached: Tensor = _Attached.apply(solve, walk, twice, ys, y0, ts, *solve.vector_field.inputs)
    return attached


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, solve: RecordedSolve, walk: Walk, twice: bool, ys: Tensor, y0: Tensor, ts: Tensor, *inputs: Tensor
    ) -> Tensor:
        ctx.solve, ctx.walk, ctx.twice = solve, walk, twice
        ctx.save_for_backward(y0, ts, *inputs)
        return ys.view_as(ys)

    @staticmethod
    def backward(ctx: Any, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[4:]
        if torch.is_grad_enabled():
            refuse_second_derivative(ctx.twice)
            grads = _replayed_gradients(ctx.solve, ctx.saved_tensors, needed, grad_ys)
        else:
            grads = _pulled_gradients(ctx.solve, ctx.walk, ctx.saved_tensors, needed, grad_ys)
        return None, None, None, None, *grads


def _pulled_gradients(
    solve: RecordedSolve, walk: Walk, saved: tuple[Tensor, ...], needed: tuple[bool, ...], grad_ys: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of y0, ts and the inputs, None where none is needed."""
    _, ts, *inputs = saved
    needs_y0, needs_ts, *needs_inputs = needed
    leaves = tuple(inputs) if solve.compiled else solve.vector_field.leaves
    wanted = list(itertools.compress(leaves, needs_inputs))
    with outside_autocast(grad_ys.device.type):
        pullback = Pullback(solve.tableau, wanted, KnownInputs(leaves), solve.ts, grad_ys, with_times=needs_ts)
        for n, evaluations in walk():
            pullback.step(solve.steps[n], evaluations)
        pullback.finish(solve.steps[0])
    found = iter(pullback.grad_inputs)
    grad_ts = None if pullback.grad_ts is None else pullback.grad_ts.to(ts.dtype)
    grad_y0 = pullback.grad_y if needs_y0 else None
    return (grad_y0, grad_ts, *(next(found) if is_needed else None for is_needed in needs_inputs))


def _replayed_gradients(
    solve: RecordedSolve, saved: tuple[Tensor, ...], needed: tuple[bool, ...], grad_ys: Tensor
) -> tuple[Tensor | None, ...]:
    """The same with a graph of their own."""
    refuse_random(solve.is_random)
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
        raise RuntimeError("second derivatives (create_graph=True) need gradient=direct: the others have none")
