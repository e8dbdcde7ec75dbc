"""A solver that fails where a test wants it to."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from node_cli.ode.base import Solver
from node_cli.ode.solution import Solution, SolveError, SolveStats, Status


@dataclass(frozen=True, kw_only=True)
class Touchy(Solver):
    """Euler's method; fails where an entry of the state is beyond `limit`, with `only_backward` in adjoint solves."""

    on_failure: str = "raise"
    fallback_steps: int = 5
    num_steps: int = 3
    limit: float = 5.0
    only_backward: bool = False
    differentiable: ClassVar[bool] = True
    has_tolerances: ClassVar[bool] = False
    has_norm: ClassVar[bool] = False

    def integrate(self, vector_field, y0, ts, *, norm=None, first_step=None):
        is_backward = isinstance(y0, tuple)
        state = y0 if is_backward else (y0,)
        if not state[0].abs().max() <= self.limit and is_backward >= self.only_backward:
            raise SolveError(Status.STEP_UNDERFLOW, ts[0].item(), 7)
        step = (ts[-1] - ts[0]) / self.num_steps
        for i in range(self.num_steps):
            slope = vector_field((ts[0] + i * step).to(state[0].dtype), state if is_backward else state[0])
            slopes = slope if is_backward else (slope,)
            state = tuple(y + (step * dy).to(y.dtype) for y, dy in zip(state, slopes, strict=True))
        stats = SolveStats(self.num_steps, self.num_steps, 0, [abs(step.item())] * self.num_steps)
        ends = tuple(torch.stack(pair) for pair in zip(y0 if is_backward else (y0,), state, strict=True))
        return Solution(ends if is_backward else ends[0], stats)
