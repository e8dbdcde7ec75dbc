"""How a solve is differentiated: each gradient wraps a solver; no solver knows a gradient."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from node_cli.ode.base import Solver, VectorField
from node_cli.ode.solution import FirstSteps, Solution


class Gradient(Protocol):
    """How a solve is differentiated."""

    def check(self, solver: Solver) -> None:
        """Raises ValueError where this gradient and `solver` do not go together."""

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        """Solves from `y0` `(batch, ...)` at the first of `ts`: `(times,)`, or each sample's own, `(batch, times)`.

        `ys` has a gradient for `y0`, `ts`, the parameters of a module, and every other tensor that the vector field
        uses. `first_steps` are tried first and brought up to date, the backward one by `backward()`.

        Raises:
            SolveError: the solve failed; in `backward()`, the backward solve did.
        """
