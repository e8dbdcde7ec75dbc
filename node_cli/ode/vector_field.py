"""The right-hand side of an ODE as a solve sees it: counted, bounded and watched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic

import torch
from torch import Tensor

from node_cli.ode.solution import SolveError, SolveStats, State, Status


class CountedVectorField(Generic[State]):
    """`f(t, y) -> dy/dt` for one solve. The solve counts evaluations and steps, so no model has to.

    The result is cast to the dtype of `y`: under autocast `f` computes in lower precision, the state does not.
    `step_start` is the time at which the last step began.

    Raises:
        SolveError: at evaluation `max_nfe + 1` or step `max_steps + 1`; at a step that starts from a non-finite state
            or no longer moves t.
    """

    def __init__(self, f: Callable[[Tensor, State], State], max_nfe: int | None, max_steps: int | None = None) -> None:
        self._f: Callable[[Tensor, Any], Any] = f
        self._max_nfe = max_nfe
        self._max_steps = max_steps
        self.step_start = torch.tensor(math.nan)
        self.stats = SolveStats()

    def __call__(self, t: Tensor, y: State) -> State:
        self.count(1, t)
        dy: State = self._f(t, y)
        if isinstance(y, tuple) or isinstance(dy, tuple):
            return dy
        if dy.shape != y.shape:
            shapes = f"{tuple(y.shape)}, got {tuple(dy.shape)}"
            raise ValueError(f"the vector field must return the shape of the state, {shapes}")
        return dy.to(y.dtype)

    def count(self, evaluations: int, t: Tensor) -> None:
        """Counts evaluations at `t`, also those that are made elsewhere."""
        if self._max_nfe is not None and self.stats.nfe + evaluations > self._max_nfe:
            raise self.failure(Status.TOO_MANY_EVALUATIONS, t)
        self.stats.nfe += evaluations

    def failure(self, status: Status, t: Tensor, detail: str = "") -> SolveError:
        """The error to raise for a solve that failed at `t`."""
        return SolveError(status, t.reshape(-1)[0].item(), self.stats.nfe, detail)

    def start_step(self, t: Tensor, y: State, step: Tensor) -> None:
        """Refuses a step that cannot succeed, with the true reason, before the solver takes it."""
        self.step_start = t
        if step == 0 or not all_finite(y):  # no step size follows from an error that is not a number
            raise self.failure(Status.NON_FINITE, t)
        if abs(t) + step == abs(t):
            raise self.failure(Status.STEP_UNDERFLOW, t)
        if self.stats.num_accepted + self.stats.num_rejected == self._max_steps:
            raise self.failure(Status.TOO_MANY_STEPS, t)

    def accept_step(self, t: Tensor, y: State, step: Tensor) -> None:
        """Counts an accepted step."""
        self.stats.num_accepted += 1
        self.stats.step_sizes.append(abs(step.item()))

    def reject_step(self, t: Tensor, y: State, step: Tensor) -> None:
        """Counts a rejected step."""
        self.stats.num_rejected += 1

    def start_and_accept_step(self, t: Tensor, y: State, step: Tensor) -> None:
        """For methods of fixed step size, which accept every step."""
        self.start_step(t, y, step)
        self.accept_step(t, y, step)


def all_finite(y: Tensor | tuple[Tensor, ...]) -> bool:
    """Whether no entry of the state is infinite or not a number."""
    tensors = y if isinstance(y, tuple) else (y,)
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
