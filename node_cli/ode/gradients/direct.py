"""Discretise, then optimise: autograd looks through every step of the solver."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from node_cli.ode.base import Solver
from node_cli.ode.solution import Solution


@dataclass(frozen=True, kw_only=True)
class Direct:
    """The exact gradient of the solve that was made; memory grows with the evaluations."""

    def check(self, solver: Solver) -> None:
        """Raises ValueError for a solver that autograd cannot look through."""
        if not solver.differentiable:
            raise ValueError(
                f"gradient=direct cannot look through solver={type(solver).__name__.lower()}, "
                "which runs outside autograd: use gradient=adjoint"
            )

    def solve(self, solver: Solver, vector_field: nn.Module, y0: Tensor, ts: Tensor) -> Solution[Tensor]:
        """See `Gradient.solve`."""
        return solver.integrate(vector_field, y0, ts)
