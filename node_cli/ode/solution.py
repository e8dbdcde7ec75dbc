"""What a solve returns: the states, what it cost, and how it can fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from torch import Tensor

from node_cli.ode.errors import Advice, Names

State = TypeVar("State", Tensor, tuple[Tensor, ...])


class Status(Enum):
    """Why a solve failed: a sentence with advice each, where `{name}` stands for one of `errors.ARGUMENTS`."""

    STEP_UNDERFLOW = (
        "the step size underflowed: it no longer moves t. The problem is too stiff for this method at this tolerance: "
        "raise {rtol} and {atol}, lower the learning rate, or take a method for stiff problems ({stiff}; check its "
        "gradient, whose solve backwards in time may be unstable)"
    )
    NON_FINITE = (
        "the state is no longer finite. The vector field has grown too large: lower the learning rate, clip gradients "
        "({clip}), or shorten the interval ({ts})"
    )
    NON_FINITE_START = (
        "the state is not finite at the start, before any step: look for NaN and infinity in {y0}, its data and the "
        "layers before it"
    )
    TOO_MANY_EVALUATIONS = (
        "the evaluations of the vector field reached {max_nfe}. Raise it, or raise {rtol} and {atol}, "
        "or take a fixed-step method ({fixed})"
    )
    TOO_MANY_STEPS = "the steps reached {max_steps}. Raise it, or raise {rtol} and {atol}"
    NOT_CONVERGED = (
        "the fixed-point iteration of the implicit step did not converge. Take smaller steps ({num_steps}), "
        "more iterations ({max_iters}), or a looser {rtol}"
    )
    STOPPED_EARLY = "the solver gave up before the end time. Raise {rtol} and {atol}, or take another method"
    TOO_LARGE = (
        "the state is too large for a method that keeps a matrix of its size squared. Take an explicit method "
        "({explicit}), or a smaller batch or network"
    )


class SolveError(Advice, RuntimeError):
    """A solve that failed at time `t` after `nfe` evaluations; the message says why and what to do."""

    def __init__(self, status: Status, t: float, nfe: int, detail: str = "") -> None:
        super().__init__(status, t, nfe, detail)
        self.status = status
        self.t = t
        self.nfe = nfe
        self.detail = detail

    def worded(self, names: Names) -> str:
        """See `Advice.worded`."""
        advice = self.status.value.format_map(names)
        return f"the ODE solve failed at t = {self.t:.6g} after {self.nfe} evaluations: {self.detail}{advice}"


@dataclass
class SolveStats:
    """What one solve cost. `step_sizes` are the accepted ones, in order, as magnitudes in units of t.

    `next_step` is what would have been tried next, and `next_first_step`, of a solver that carries it over, what a
    solve of a similar problem should try first; None for solvers that do not choose their steps. `drift`, of the
    backward solve of `adjoint`, is how far it arrives from the states of the forward one, the largest
    |y_back - y| / |y| over the output times.
    """

    nfe: int = 0
    num_accepted: int = 0
    num_rejected: int = 0
    step_sizes: list[float] = field(default_factory=list)
    next_step: float | None = None
    next_first_step: float | None = None
    drift: float | None = None

    def add(self, other: SolveStats) -> None:
        """Counts the cost of another solve too."""
        self.nfe += other.nfe
        self.num_accepted += other.num_accepted
        self.num_rejected += other.num_rejected
        self.step_sizes += other.step_sizes
        self.drift = max((drift for drift in (self.drift, other.drift) if drift is not None), default=None)


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
    backward: SolveStats | tuple[SolveStats, ...] = field(default_factory=SolveStats)

    @property
    def backward_stats(self) -> SolveStats:
        """What the solves backwards cost, of all pieces together."""
        if isinstance(self.backward, SolveStats):
            return self.backward
        total = SolveStats()
        for stats in self.backward:
            total.add(stats)
        return total
