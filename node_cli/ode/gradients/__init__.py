"""How a solve is differentiated: each gradient wraps a solver; no solver knows a gradient."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from node_cli.ode.base import Solver
from node_cli.ode.solution import Solution


class Gradient(Protocol):
    """How a solve is differentiated."""

    def check(self, solver: Solver) -> None:
        """Raises ValueError where this gradient and `solver` do not go together."""

    def solve(self, solver: Solver, vector_field: nn.Module, y0: Tensor, ts: Tensor) -> Solution[Tensor]:
        """Solves from `y0` `(batch, ...)` at `ts[0]`; `ys` has a gradient for y0, `ts` and the parameters."""
