"""The exact gradient of the solve that was made, in little memory: each step is run again when its turn comes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from node_cli.ode.base import Solver, VectorField
from node_cli.ode.errors import ArgumentError
from node_cli.ode.gradients.binomial import ThinnedStates
from node_cli.ode.gradients.inputs import WatchedVectorField
from node_cli.ode.gradients.recorded import RecordedSolve, attach
from node_cli.ode.gradients.same_field import precision_of
from node_cli.ode.runge_kutta import RungeKutta, compiled_field, compiled_steps
from node_cli.ode.solution import FirstSteps, Solution
from node_cli.ode.states import keep_autocast, on_host
from node_cli.ode.stepping import Step
from node_cli.ode.vector_field import outside_transforms


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Equal to `direct`: the solve runs without a graph and keeps the state of every accepted step.

    Memory: one step, and one state for each accepted step; with `max_checkpoints`, no more than so many states, for
    which steps are run again more than once (binomial checkpointing; Griewank and Walther 2000, algorithm 799).
    """

    max_checkpoints: int | None

    def __post_init__(self) -> None:
        if self.max_checkpoints is not None and self.max_checkpoints < 1:
            raise ValueError(f"max_checkpoints must be at least 1, got {self.max_checkpoints}")

    def check(self, solver: Solver) -> None:
        """Raises ArgumentError for a solver whose steps cannot be run again."""
        if not isinstance(solver, RungeKutta):
            raise ArgumentError(
                "{checkpoint} runs steps again, and a solve by {kind} does not record any: take {dopri5} or {adjoint}",
                kind=type(solver).__name__,
            )

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        """See `Gradient.solve`."""
        assert isinstance(solver, RungeKutta)
        return checkpointed_solve(solver, vector_field, y0, ts, first_steps, self.max_checkpoints, twice=False)


def checkpointed_solve(
    solver: RungeKutta,
    vector_field: VectorField[Tensor],
    y0: Tensor,
    ts: Tensor,
    first_steps: FirstSteps,
    max_checkpoints: int | None,
    *,
    twice: bool,
) -> Solution[Tensor]:
    """A solve without a graph, whose steps are run again in the backward pass; see `Checkpoint`."""
    vector_field, device = outside_transforms(vector_field, y0, ts), y0.device.type
    raw = keep_autocast(vector_field, device)
    field = keep_autocast(compiled_field(solver, vector_field, y0), device)
    compiled = compiled_steps(solver, vector_field, y0)
    first_step = first_steps.forward
    if not torch.is_grad_enabled():
        return solver.integrate(field, y0, ts, first_step=first_step, compiled=compiled)
    steps: list[Step] = []
    states = ThinnedStates(max_checkpoints)

    def record(step: Step, y: Tensor) -> None:
        steps.append(step)
        states.append(y)

    watched = WatchedVectorField(field, first=raw, keep_watching=not y0.requires_grad)
    solution = solver.integrate(watched, y0.detach(), ts, first_step=first_step, record=record, compiled=compiled)
    watched.stop_watching()
    first_steps.forward = solution.stats.next_first_step
    solve = RecordedSolve(
        tableau=solver.tableau,
        vector_field=watched,
        ts=on_host(ts),
        steps=steps,
        states=states,
        end=solution.ys[-1].clone(),
        with_times=ts.requires_grad,
        precision=precision_of(y0),
        is_compiled=solver.compile != "none",
        compiled=compiled,
    )
    return Solution(attach(solve, solution.ys, y0, ts, twice=twice), solution.stats, solve.backward_stats)
