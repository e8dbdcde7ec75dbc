"""What a solve returns: the states, what it cost, and how it can fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

import torch
from torch import Tensor

State = TypeVar("State", Tensor, tuple[Tensor, ...])


class Status(Enum):
    """Why a solve failed: one sentence with advice each."""

    STEP_UNDERFLOW = (
        "the step size underflowed: it no longer moves t. The problem is too stiff for this method at this tolerance: "
        "raise solver.rtol and solver.atol, lower the learning rate, or take a method for stiff problems "
        "(solver=scipy solver.method=Radau gradient=adjoint)"
    )
    NON_FINITE = (
        "the state is no longer finite. The vector field has grown too large: lower the learning rate, clip gradients "
        "(trainer.clip_norm=1), or shorten the interval (model.t1)"
    )
    TOO_MANY_EVALUATIONS = (
        "the evaluations of the vector field reached solver.max_nfe. Raise it, or raise solver.rtol and solver.atol, "
        "or take a fixed-step method (solver=rk4)"
    )
    TOO_MANY_STEPS = "the steps reached solver.max_steps. Raise it, or raise solver.rtol and solver.atol"
    NOT_CONVERGED = (
        "the fixed-point iteration of the implicit step did not converge. Take smaller steps (solver.num_steps), "
        "more iterations (solver.max_iters), or a looser solver.rtol"
    )
    STOPPED_EARLY = "the solver gave up before the end time. Raise solver.rtol and solver.atol, or take another method"
    TOO_LARGE = (
        "the state is too large for a method that keeps a matrix of its size squared. Take an explicit method "
        "(solver.method=RK45), or a smaller batch or network"
    )


class SolveError(RuntimeError):
    """A solve that failed at time `t`; the message is one sentence with advice."""

    def __init__(self, status: Status, t: float, nfe: int, detail: str = "") -> None:
        super().__init__(f"the ODE solve failed at t = {t:.6g} after {nfe} evaluations: {detail}{status.value}")
        self.status = status
        self.t = t
        self.nfe = nfe
        self.detail = detail

    def __reduce__(self) -> tuple[type[SolveError], tuple[Status, float, int, str]]:
        """As what another process can make again."""
        return type(self), (self.status, self.t, self.nfe, self.detail)


@contextmanager
def telling_of_resolution(rtol: float, dtype: torch.dtype) -> Iterator[None]:
    """Where a solve fails whose tolerance is finer than its numbers, the message says so."""
    try:
        yield
    except SolveError as error:
        resolution = torch.finfo(dtype).eps
        if error.status is Status.NON_FINITE or rtol >= resolution:
            raise
        name = str(dtype).removeprefix("torch.")
        told = f"solver.rtol={rtol:g} is finer than {name} can tell numbers apart ({resolution:.1e}); "
        raise SolveError(error.status, error.t, error.nfe, told + error.detail) from error


@dataclass
class SolveStats:
    """What one solve cost. `step_sizes` are the accepted ones, in order, as magnitudes in units of t.

    `next_step` is what would have been tried next, and `next_first_step`, of a solver that carries it over, what a
    solve of a similar problem should try first; None for solvers that do not choose their steps.
    """

    nfe: int = 0
    num_accepted: int = 0
    num_rejected: int = 0
    step_sizes: list[float] = field(default_factory=list)
    next_step: float | None = None
    next_first_step: float | None = None

    def add(self, other: SolveStats) -> None:
        """Counts the cost of another solve too."""
        self.nfe += other.nfe
        self.num_accepted += other.num_accepted
        self.num_rejected += other.num_rejected
        self.step_sizes += other.step_sizes


@dataclass
class FirstSteps:
    """What the next solve of the same problem tries first, and what its backward solve does; None: chosen anew."""

    forward: float | None = None
    backward: float | None = None


@dataclass(frozen=True)
class Solution(Generic[State]):
    """States `ys` at the asked `ts`, shape `(len(ts), *y0.shape)` (a tuple of them for a tuple state), and the costs.

    `backward_stats` stays empty until `backward()` has run, and for ever when the gradient needs no second solve.
    """

    ys: State
    stats: SolveStats
    backward_stats: SolveStats = field(default_factory=SolveStats)
