"""The exact gradient of the solve that was made, with the graph of every evaluation kept."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from node_cli.ode.base import Solver, VectorField
from node_cli.ode.errors import ArgumentError
from node_cli.ode.gradients.exact import exact_solve
from node_cli.ode.own_times import AskedTimes
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import FirstSteps, Solution


@dataclass(frozen=True, kw_only=True)
class Direct:
    """Backpropagation through the accepted steps; memory grows with the evaluations. Second derivatives too.

    With `compile=step` no graph is kept: the compiled step backwards is faster with the step itself in it.
    """

    def check(self, solver: Solver) -> None:
        """Raises ArgumentError for a solver that autograd cannot differentiate through."""
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
            asked = AskedTimes.of(ts, y0, may_be_joined=not ts.requires_grad)
            return asked.spread(solver.integrate(vector_field, y0, asked.ts, first_step=first_steps.forward))
        return exact_solve(solver, vector_field, y0, ts, first_steps, keeps_graphs=True, twice=True)
