"""The exact gradient of the solve that was made, with the graph of every evaluation kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from node_cli.ode.base import Solver, VectorField
from node_cli.ode.errors import ArgumentError
from node_cli.ode.gradients.checkpoint import checkpointed_solve
from node_cli.ode.gradients.inputs import WatchedVectorField
from node_cli.ode.gradients.recorded import RecordedSolve, attach
from node_cli.ode.gradients.same_field import precision_of
from node_cli.ode.gradients.trajectory import TapedVectorField, Trajectory
from node_cli.ode.runge_kutta import RungeKutta, compiled_field
from node_cli.ode.solution import FirstSteps, Solution
from node_cli.ode.states import keep_autocast, on_host
from node_cli.ode.vector_field import outside_transforms


@dataclass(frozen=True, kw_only=True)
class Direct:
    """Backpropagation through the accepted steps; memory grows with the evaluations. Second derivatives too.

    With `compile=step` no graph is kept: the compiled step backwards is faster with the step itself in it.
    """

    def check(self, solver: Solver) -> None:
        """Raises ArgumentError for a solver that autograd cannot look through."""
        if not solver.differentiable:
            raise ArgumentError(
                "{direct} cannot differentiate a solve by {kind}, which runs outside autograd: take {adjoint}",
                kind=type(solver).__name__,
            )

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        """See `Gradient.solve`."""
        if not isinstance(solver, RungeKutta):
            return solver.integrate(vector_field, y0, ts, first_step=first_steps.forward)
        if solver.compile == "step" or not torch.is_grad_enabled():
            return checkpointed_solve(solver, vector_field, y0, ts, first_steps, None, twice=True)
        vector_field, device = outside_transforms(vector_field, y0, ts), y0.device.type
        field = keep_autocast(compiled_field(solver, vector_field, y0), device)
        watched = WatchedVectorField(
            field, first=keep_autocast(vector_field, device), keep_watching=not y0.requires_grad
        )
        tape = TapedVectorField(watched, times_have_gradients=ts.requires_grad)
        trajectory = Trajectory()
        keep = trajectory.keeper_of_points(solver.tableau, tape)
        solution = solver.integrate(tape, y0.detach(), ts, first_step=first_steps.forward, record=keep)
        watched.stop_watching()
        first_steps.forward = solution.stats.next_first_step
        solve = RecordedSolve(
            tableau=solver.tableau,
            vector_field=watched,
            ts=on_host(ts),
            steps=trajectory.steps,
            states=trajectory.states,
            end=solution.ys[-1].clone(),
            with_times=ts.requires_grad,
            precision=precision_of(y0),
            is_compiled=solver.compile != "none",
            points=trajectory.points,
        )
        return Solution(attach(solve, solution.ys, y0, ts, twice=True), solution.stats, solve.backward_stats)
