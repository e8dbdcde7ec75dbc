"""What a `solver` config names: how the problem is stepped. The stepping itself is torchdiffeq's.

Every solver offers `integrate`, which autograd can differentiate where `differentiable` says so, and
`with_tolerances`, the same solver for a backward solve. Time is kept in float64 and cast once for the vector field.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor
from torchdiffeq import odeint

from node_cli.ode.solution import Solution, State, Status
from node_cli.ode.vector_field import CountedVectorField, all_finite

VectorField = Callable[[Tensor, State], State]
Norm = Callable[[tuple[Tensor, ...]], Tensor]

ADAPTIVE_METHODS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
FIXED_METHODS = ("euler", "midpoint", "heun2", "heun3", "rk4")
SCIPY_METHODS = ("LSODA", "RK45", "RK23", "DOP853", "Radau", "BDF")


class Solver(Protocol):
    """How an initial value problem is stepped."""

    @property
    def differentiable(self) -> bool:
        """Whether autograd can look through `integrate`."""

    @property
    def adaptive(self) -> bool:
        """Whether tolerances choose the steps."""

    def integrate(
        self, vector_field: VectorField[State], y0: State, ts: Tensor, norm: Norm | None = None
    ) -> Solution[State]:
        """Solves dy/dt = vector_field(t, y) from `y0` at `ts[0]`.

        Args:
            vector_field: maps a 0-dim `t` and a state to dy/dt.
            y0: `(batch, ...)` or a tuple of tensors of any shapes.
            ts: output times, 1-dim, strictly increasing or decreasing; `ys[0]` is `y0`.
            norm: for a tuple state, what the error of a step is measured with.

        Raises:
            SolveError: the solve failed; its `status` says how.
        """

    def with_tolerances(self, rtol: float | None, atol: float | None) -> Solver:
        """The same solver at other tolerances; None keeps the own one."""


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Embedded Runge-Kutta pairs whose step size follows the estimated error.

    dopri5 (order 5, Dormand and Prince 1980), dopri8 (8, Hairer et al. 1993), bosh3 (3, Bogacki and Shampine 1989),
    fehlberg2 (2, Fehlberg 1969), adaptive_heun (2).
    """

    method: str
    rtol: float
    atol: float
    first_step: float | None
    min_step: float
    max_step: float | None
    safety: float
    ifactor: float
    dfactor: float
    max_steps: int | None
    max_nfe: int | None
    differentiable: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _require_choice("method", self.method, ADAPTIVE_METHODS)
        _require_positive(self, "rtol", "atol", "first_step", "max_step", "max_steps", "max_nfe")
        _require(self.min_step >= 0, "min_step must be 0 or more", self.min_step)
        _require(0 < self.safety < 1, "safety must be between 0 and 1", self.safety)
        _require(0 < self.dfactor < 1, "dfactor must be between 0 and 1", self.dfactor)
        _require(self.ifactor > 1, "ifactor must be more than 1", self.ifactor)
        _require(self.max_step is None or self.max_step > self.min_step, "max_step must exceed min_step", self.max_step)

    def integrate(
        self, vector_field: VectorField[State], y0: State, ts: Tensor, norm: Norm | None = None
    ) -> Solution[State]:
        """See `Solver.integrate`."""
        counted = CountedVectorField(vector_field, self.max_nfe, self.max_steps)
        options: dict[str, Any] = {
            "first_step": self.first_step,
            "min_step": self.min_step,
            "max_step": math.inf if self.max_step is None else self.max_step,
            "safety": self.safety,
            "ifactor": self.ifactor,
            "dfactor": self.dfactor,
            "dtype": ts.dtype,
        }
        if norm is not None:
            options["norm"] = norm
        callbacks = {
            "callback_step": counted.start_step,
            "callback_accept_step": counted.accept_step,
            "callback_reject_step": counted.reject_step,
        }
        return _solve(counted, y0, ts, callbacks, method=self.method, rtol=self.rtol, atol=self.atol, options=options)

    def with_tolerances(self, rtol: float | None, atol: float | None) -> Adaptive:
        """See `Solver.with_tolerances`."""
        return _replace_tolerances(self, rtol, atol)


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Runge-Kutta methods of fixed step size: euler (order 1), midpoint, heun2 (2), heun3 (3), rk4 (4, the 3/8 rule).

    Between two output times lie `num_steps` equal steps, or steps of `step_size`, the last one shorter.
    """

    method: str
    num_steps: int | None
    step_size: float | None
    perturb: bool
    max_nfe: int | None
    differentiable: ClassVar[bool] = True
    adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _require_choice("method", self.method, FIXED_METHODS)
        _require_grid(self)

    def integrate(
        self, vector_field: VectorField[State], y0: State, ts: Tensor, norm: Norm | None = None
    ) -> Solution[State]:
        """See `Solver.integrate`."""
        return _solve_on_grid(self, vector_field, y0, ts, method=self.method, options={"perturb": self.perturb})

    def with_tolerances(self, rtol: float | None, atol: float | None) -> Fixed:
        """The same solver: it has no tolerances."""
        return self


@dataclass(frozen=True, kw_only=True)
class ExplicitAdams:
    """Adams-Bashforth of variable order up to `max_order`, on a fixed grid (see `Fixed`); starts with rk4."""

    num_steps: int | None
    step_size: float | None
    max_order: int
    max_nfe: int | None
    differentiable: ClassVar[bool] = True
    adaptive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _require_grid(self)
        _require(4 <= self.max_order <= 12, "max_order must be between 4 and 12", self.max_order)

    def integrate(
        self, vector_field: VectorField[State], y0: State, ts: Tensor, norm: Norm | None = None
    ) -> Solution[State]:
        """See `Solver.integrate`."""
        options = {"max_order": self.max_order}
        return _solve_on_grid(self, vector_field, y0, ts, method="explicit_adams", options=options)

    def with_tolerances(self, rtol: float | None, atol: float | None) -> ExplicitAdams:
        """The same solver: it has no tolerances."""
        return self


@dataclass(frozen=True, kw_only=True)
class ImplicitAdams:
    """Adams-Bashforth-Moulton of variable order, on a fixed grid (see `Fixed`).

    `rtol` and `atol` end the fixed-point iteration of a step after at most `max_iters` rounds; they choose no steps.
    """

    num_steps: int | None
    step_size: float | None
    rtol: float
    atol: float
    max_iters: int
    max_order: int
    max_nfe: int | None
    differentiable: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _require_grid(self)
        _require_positive(self, "rtol", "atol", "max_iters")
        _require(4 <= self.max_order <= 12, "max_order must be between 4 and 12", self.max_order)

    def integrate(
        self, vector_field: VectorField[State], y0: State, ts: Tensor, norm: Norm | None = None
    ) -> Solution[State]:
        """See `Solver.integrate`."""
        options = {"max_order": self.max_order, "max_iters": self.max_iters}
        return _solve_on_grid(
            self, vector_field, y0, ts, method="implicit_adams", rtol=self.rtol, atol=self.atol, options=options
        )

    def with_tolerances(self, rtol: float | None, atol: float | None) -> ImplicitAdams:
        """See `Solver.with_tolerances`."""
        return _replace_tolerances(self, rtol, atol)


@dataclass(frozen=True, kw_only=True)
class Scipy:
    """`scipy.integrate.solve_ivp` on the processor: slow, without autograd, but with methods for stiff problems."""

    method: str
    rtol: float
    atol: float
    min_step: float
    max_step: float | None
    max_nfe: int | None
    differentiable: ClassVar[bool] = False
    adaptive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _require_choice("method", self.method, SCIPY_METHODS)
        _require_positive(self, "rtol", "atol", "max_step", "max_nfe")
        _require(self.min_step >= 0, "min_step must be 0 or more", self.min_step)
        _require(self.min_step == 0 or self.method == "LSODA", "min_step must be 0: only LSODA takes it", self.min_step)

    def integrate(
        self, vector_field: VectorField[State], y0: State, ts: Tensor, norm: Norm | None = None
    ) -> Solution[State]:
        """See `Solver.integrate`; the steps are not counted, scipy does not tell them."""
        counted = CountedVectorField(vector_field, self.max_nfe)
        options: dict[str, Any] = {"solver": self.method, "min_step": self.min_step}
        if self.max_step is not None:
            options["max_step"] = self.max_step
        with torch.no_grad():
            return _solve(counted, y0, ts, {}, method="scipy_solver", rtol=self.rtol, atol=self.atol, options=options)

    def with_tolerances(self, rtol: float | None, atol: float | None) -> Scipy:
        """See `Solver.with_tolerances`."""
        return _replace_tolerances(self, rtol, atol)


def _solve_on_grid(
    solver: Fixed | ExplicitAdams | ImplicitAdams,
    vector_field: VectorField[State],
    y0: State,
    ts: Tensor,
    **odeint_arguments: Any,
) -> Solution[State]:
    def grid(_f: Any, _y0: Any, times: Tensor) -> Tensor:
        return _grid(times, solver.num_steps, solver.step_size)

    counted = CountedVectorField(vector_field, solver.max_nfe)
    odeint_arguments["options"]["grid_constructor"] = grid
    return _solve(counted, y0, ts, {"callback_step": counted.start_and_accept_step}, **odeint_arguments)


def _grid(ts: Tensor, num_steps: int | None, step_size: float | None) -> Tensor:
    """All step boundaries: every output time, and between two of them equal steps or steps of `step_size`."""
    pieces = []
    for t0, t1 in zip(ts[:-1], ts[1:], strict=True):
        if num_steps is not None:
            fractions = torch.arange(num_steps, dtype=ts.dtype, device=ts.device) / num_steps
        else:
            assert step_size is not None
            length = abs((t1 - t0).item())
            # A last step of rounding size would be no step: the tolerance is relative to the number of steps.
            count = max(1, math.ceil(length / step_size * (1 - 1e-12)))
            fractions = torch.arange(count, dtype=ts.dtype, device=ts.device) * (step_size / length)
        pieces.append(t0 + fractions * (t1 - t0))
    return torch.cat([*pieces, ts[-1:]])


def _solve(
    counted: CountedVectorField[State],
    y0: State,
    ts: Tensor,
    callbacks: dict[str, Callable[..., None]],
    **odeint_arguments: Any,
) -> Solution[State]:
    """One call of torchdiffeq, its callbacks attached, its warnings turned into named failures."""
    vars(counted).update(callbacks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ys = odeint(counted, y0, ts, **odeint_arguments)
    final = tuple(y[-1] for y in ys) if isinstance(ys, tuple) else ys[-1]
    for warning in caught:
        message = str(warning.message)
        if "Functional iteration did not converge" in message:
            raise counted.failure(Status.NOT_CONVERGED, ts[-1])
        if "`min_step`" not in message:  # torchdiffeq hands min_step to scipy methods that ignore it
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if len(ys[0] if isinstance(ys, tuple) else ys) != len(ts):
        raise counted.failure(Status.STOPPED_EARLY, ts[-1])
    if not all_finite(final):
        raise counted.failure(Status.NON_FINITE, ts[-1])
    return Solution(ys, counted.stats)


TolerantSolver = TypeVar("TolerantSolver", Adaptive, ImplicitAdams, Scipy)


def _replace_tolerances(solver: TolerantSolver, rtol: float | None, atol: float | None) -> TolerantSolver:
    return replace(solver, rtol=solver.rtol if rtol is None else rtol, atol=solver.atol if atol is None else atol)


def _require(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {got}")


def _require_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, f"{key} must be one of {', '.join(allowed)}", value)


def _require_positive(solver: object, *keys: str) -> None:
    for key in keys:
        value = vars(solver)[key]
        _require(value is None or value > 0, f"{key} must be positive", value)


def _require_grid(solver: Fixed | ExplicitAdams | ImplicitAdams) -> None:
    if (solver.num_steps is None) == (solver.step_size is None):
        raise ValueError(
            f"num_steps and step_size exclude each other, got num_steps={solver.num_steps} "
            f"step_size={solver.step_size}: set one of them to null"
        )
    _require_positive(solver, "num_steps", "step_size", "max_nfe")
