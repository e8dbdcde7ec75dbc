"""What a solver is: how an initial value problem is stepped, and nothing about how it is differentiated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.checks import require_choice, require_positive
from node_cli.ode.solution import Solution, SolveError, State, Status
from node_cli.ode.vector_field import all_finite

VectorField = Callable[[Tensor, State], State]
NormOfParts = Callable[[tuple[Tensor, ...]], Tensor]

ON_FAILURE = ("raise", "skip_batch", "fallback")


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):
    """How an initial value problem is stepped.

    `on_failure` says what training does with a batch whose solve fails: `raise`, `skip_batch`, or `fallback`, which
    solves this batch once more by the classic rk4 in `fallback_steps` steps between two output times.
    """

    on_failure: str
    fallback_steps: int

    def __post_init__(self) -> None:
        require_choice("on_failure", self.on_failure, ON_FAILURE)
        require_positive(fallback_steps=self.fallback_steps)

    @property
    @abstractmethod
    def differentiable(self) -> bool:
        """Whether autograd can differentiate through `integrate`."""

    @property
    @abstractmethod
    def has_tolerances(self) -> bool:
        """Whether there are `rtol` and `atol` that have an effect."""

    @property
    @abstractmethod
    def has_norm(self) -> bool:
        """Whether `integrate` uses `norm`."""

    @abstractmethod
    def integrate(
        self,
        vector_field: VectorField[State],
        y0: State,
        ts: Tensor,
        *,
        norm: NormOfParts | None = None,
        first_step: float | None = None,
    ) -> Solution[State]:
        """Solves dy/dt = vector_field(t, y) from `y0` at the first of `ts`.

        Args:
            vector_field: maps a time and a state to dy/dt. The time is 0-dim, or `(batch, 1, ..., 1)` where each
                sample has its own.
            y0: `(batch, ...)` or a tuple of tensors of any shapes.
            ts: output times, float64, increasing or decreasing, of all samples `(times,)`, or, for a state that is one
                tensor, of each sample's own `(batch, times)`; `ys[0]` is `y0`.
            norm: for a tuple state, what the error of a step is measured with; for steps that processes share, over
                all of them.
            first_step: the step to try first, for a solver that carries it over from the last solve.

        Raises:
            SolveError: the solve failed; its `status` says how.
        """

    @contextmanager
    def explained(self, y0: State) -> Iterator[None]:
        """See `explain`."""
        try:
            yield
        except SolveError as error:
            self.explain(error, y0)
            raise

    def explain(self, error: SolveError, y0: State) -> None:
        """Adds to why a solve from `y0` failed what made it hopeless from the start."""
        if error.status is not Status.NON_FINITE:
            error.detail = self._resolution(y0) + error.detail
        elif not self._all_finite(y0):
            error.status = Status.NON_FINITE_START

    def _all_finite(self, y0: State) -> bool:
        """Whether every number that the solve starts from is finite."""
        return all_finite(y0)

    def _resolution(self, y0: State) -> str:
        """Whether the tolerance is finer than the numbers of the state."""
        dtype = (y0[0] if isinstance(y0, tuple) else y0).dtype
        rtol, resolution = vars(self).get("rtol"), torch.finfo(dtype).eps
        if not self.has_tolerances or not isinstance(rtol, (int, float)) or rtol >= resolution:
            return ""
        kind = str(dtype).removeprefix("torch.")
        return f"rtol={rtol:g} is finer than {kind} can resolve ({resolution:.1e}); "

    def with_tolerances(self, rtol: float | None, atol: float | None) -> Solver:
        """The same solver at other tolerances; None keeps the own one.

        Raises:
            ValueError: the solver does not take the tolerances.
        """
        changes: dict[str, Any] = {key: value for key, value in (("rtol", rtol), ("atol", atol)) if value is not None}
        assert self.has_tolerances or not changes
        return replace(self, **changes)
