"""The exact gradient of the solve that was made, in little memory: each step is run again when its turn comes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from node_cli.ode.base import Solver, VectorField
from node_cli.ode.errors import ArgumentError
from node_cli.ode.gradients.exact import exact_solve
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import FirstSteps, Solution


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
        return exact_solve(solver, vector_field, y0, ts, first_steps, max_checkpoints=self.max_checkpoints)
