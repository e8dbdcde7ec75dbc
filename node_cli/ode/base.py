"""What a solver is: how an initial value problem is stepped, and nothing about how it is differentiated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from node_cli.ode.solution import Solution, State

VectorField = Callable[[Tensor, State], State]
Norm = Callable[[tuple[Tensor, ...]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """How an initial value problem is stepped."""

    differentiable: ClassVar[bool]  # autograd can look through `integrate`
    has_tolerances: ClassVar[bool]  # there are `rtol` and `atol`
    has_norm: ClassVar[bool]  # `integrate` heeds `norm`

    @abstractmethod
    def integrate(
        self, vector_field: VectorField[State], y0: State, ts: Tensor, norm: Norm | None = None
    ) -> Solution[State]:
        """Solves dy/dt = vector_field(t, y) from `y0` at `ts[0]`.

        Args:
            vector_field: maps a 0-dim `t` and a state to dy/dt.
            y0: `(batch, ...)` or a tuple of tensors of any shapes.
            ts: output times, 1-dim, float64, strictly increasing or decreasing; `ys[0]` is `y0`.
            norm: for a tuple state, what the error of a step is measured with.

        Raises:
            SolveError: the solve failed; its `status` says how.
        """

    def with_tolerances(self, rtol: float | None, atol: float | None) -> Solver:
        """The same solver at other tolerances; None keeps the own one.

        Raises:
            ValueError: the solver does not take the tolerances.
        """
        changes = {key: value for key, value in (("rtol", rtol), ("atol", atol)) if value is not None}
        assert self.has_tolerances or not changes
        return replace(self, **changes)
