"""The exact gradient of the solve that was made, in little memory: each step is run again when its turn comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from node_cli.ode.base import Solver, VectorField
from node_cli.ode.gradients.binomial import ThinnedStates
from node_cli.ode.gradients.inputs import WatchedVectorField
from node_cli.ode.gradients.recorded import RecordedSolve, attach
from node_cli.ode.gradients.trajectory import Point
from node_cli.ode.solution import FirstSteps, Solution, SolveStats
from node_cli.ode.solvers import RungeKutta
from node_cli.ode.states import keep_autocast, output_times
from node_cli.ode.stepping import Step


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
        """Raises ValueError for a solver whose steps cannot be run again."""
        if not isinstance(solver, RungeKutta):
            raise ValueError(
                f"gradient=checkpoint needs a solver whose steps it can run again, which "
                f"solver={type(solver).__name__.lower()} does not hand over: take solver=dopri5, or gradient=adjoint"
            )

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        """See `Gradient.solve`."""
        assert isinstance(solver, RungeKutta)
        if not torch.is_grad_enabled():
            return solver.integrate(vector_field, y0, ts, first_step=first_steps.forward)
        field = keep_autocast(vector_field, y0.device.type)
        watched = WatchedVectorField(field)
        steps: list[Step] = []
        states = ThinnedStates(self.max_checkpoints)

        def record(step: Step, y: Tensor) -> None:
            steps.append(step)
            states.append(y)

        solution = solver.integrate(watched, y0.detach(), ts, first_step=first_steps.forward, record=record)
        first_steps.forward = solution.stats.next_first_step
        backward_stats = SolveStats()
        solve = RecordedSolve(solver.tableau, field, output_times(ts), steps, ts.requires_grad, backward_stats)

        def walk() -> Iterator[tuple[int, list[Point]]]:
            for n, y in states.backwards(solve.advance):
                yield n, solve.rerun(n, y)

        ys = attach(solve, walk, solution.ys, y0, ts, watched.inputs, twice=False)
        return Solution(ys, solution.stats, backward_stats)
