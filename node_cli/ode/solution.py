"""What a solve returns: the states, what it cost, and how it can fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from torch import Tensor

State = TypeVar("State", Tensor, tuple[Tensor, ...])


_CONFIG_KEYS = {
    "rtol": "solver.rtol",
    "atol": "solver.atol",
    "max_nfe": "solver.max_nfe",
    "max_steps": "solver.max_steps",
    "max_iters": "solver.max_iters",
    "num_steps": "solver.num_steps",
    "stiff": "solver=scipy solver.method=Radau gradient=adjoint",
    "explicit": "solver.method=RK45",
    "fixed": "solver=rk4",
    "interval": "model.t1",
    "clip": "trainer.clip_norm=1",
    "y0": "what an ODE block was handed",
}
_ARGUMENTS = {
    "rtol": "rtol",
    "atol": "atol",
    "max_nfe": "max_nfe",
    "max_steps": "max_steps",
    "max_iters": "max_iters",
    "num_steps": "num_steps",
    "stiff": 'method="scipy_solver" with options={"solver": "Radau"}',
    "explicit": 'options={"solver": "RK45"}',
    "fixed": 'method="rk4"',
    "interval": "ts",
    "clip": "torch.nn.utils.clip_grad_norm_",
    "y0": "y0",
}


class Caller(Enum):
    """Whose words advice is in: the config keys of a command, or the arguments of `odeint`."""

    COMMAND = _CONFIG_KEYS
    NOTEBOOK = _ARGUMENTS


class Status(Enum):
    """Why a solve failed: one sentence with advice each, to be said in the words of a `Caller`."""

    STEP_UNDERFLOW = (
        "the step size underflowed: it no longer moves t. The problem is too stiff for this method at this tolerance: "
        "raise {rtol} and {atol}, lower the learning rate, or take a method for stiff problems ({stiff}; check its "
        "gradient, whose solve backwards in time may be unstable)"
    )
    NON_FINITE = (
        "the state is no longer finite. The vector field has grown too large: lower the learning rate, clip gradients "
        "({clip}), or shorten the interval ({interval})"
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


class SolveError(RuntimeError):
    """A solve that failed at time `t`; the message is one sentence with advice, in the words of the `caller`."""

    def __init__(self, status: Status, t: float, nfe: int, detail: str = "", caller: Caller = Caller.COMMAND) -> None:
        super().__init__(status, t, nfe, detail, caller)
        self.status = status
        self.t = t
        self.nfe = nfe
        self.detail = detail
        self.caller = caller

    def __str__(self) -> str:
        sentence = self.status.value.format(**self.caller.value)
        return f"the ODE solve failed at t = {self.t:.6g} after {self.nfe} evaluations: {self.detail}{sentence}"

    def __reduce__(self) -> tuple[type[SolveError], tuple[Status, float, int, str, Caller]]:
        """As what another process can make again."""
        return type(self), (self.status, self.t, self.nfe, self.detail, self.caller)


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
