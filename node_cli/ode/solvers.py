"""What a `solver` config names, but for scipy's: the stepping itself is torchdiffeq's.

Time is kept in float64 and cast once, to the dtype of the state, for the vector field.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchdiffeq import odeint

from node_cli.ode.base import Norm, Solver, VectorField
from node_cli.ode.checks import require, require_choice, require_grid, require_positive
from node_cli.ode.solution import Solution, State, Status
from node_cli.ode.vector_field import CountedVectorField, all_finite

ADAPTIVE_METHODS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
FIXED_METHODS = ("euler", "midpoint", "heun2", "heun3", "rk4")

_NOT_CONVERGED = "Functional iteration did not converge"  # torchdiffeq only warns


@dataclass(frozen=True, kw_only=True)
class Adaptive(Solver):
    """Embedded Runge-Kutta pairs whose step size follows the estimated error.

    dopri5 (order 5, Dormand and Prince 1980), dopri8 (8, Hairer et al. 1993), bosh3 (3, Bogacki and Shampine 1989),
    fehlberg2 (2, Fehlberg 1969), adaptive_heun (2). Every output time ends a step, but dopri5 interpolates (order 4)
    at those before the last: the interpolation of the other methods is worse than their steps.
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
    has_tolerances: ClassVar[bool] = True
    has_norm: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_choice("method", self.method, ADAPTIVE_METHODS)
        require_positive(rtol=self.rtol, atol=self.atol, first_step=self.first_step, max_step=self.max_step)
        require_positive(max_steps=self.max_steps, max_nfe=self.max_nfe)
        require(self.min_step >= 0, "min_step must be 0 or more", self.min_step)
        require(0 < self.safety < 1, "safety must be between 0 and 1", self.safety)
        require(0 < self.dfactor < 1, "dfactor must be between 0 and 1", self.dfactor)
        require(self.ifactor > 1, "ifactor must be more than 1", self.ifactor)
        require(self.max_step is None or self.max_step > self.min_step, "max_step must exceed min_step", self.max_step)

    def integrate(
        self, vector_field: VectorField[State], y0: State, ts: Tensor, norm: Norm | None = None
    ) -> Solution[State]:
        """See `Solver.integrate`."""
        counted = CountedVectorField(vector_field, self.max_nfe, self.max_steps)
        callbacks = {
            "callback_step": counted.start_step,
            "callback_accept_step": counted.accept_step,
            "callback_reject_step": counted.reject_step,
        }
        options = {
            "first_step": self.first_step,
            "min_step": self.min_step,
            "max_step": math.inf if self.max_step is None else self.max_step,
            "safety": self.safety,
            "ifactor": self.ifactor,
            "dfactor": self.dfactor,
            "dtype": ts.dtype,
            "step_t": ts[-1:] if self.method == "dopri5" else ts[1:],
            **({} if norm is None else {"norm": norm}),
        }
        return _odeint(counted, callbacks, y0, ts, method=self.method, rtol=self.rtol, atol=self.atol, options=options)


@dataclass(frozen=True, kw_only=True)
class OnGrid(Solver):
    """Steps that nothing but the config chooses.

    Between two output times lie `num_steps` equal steps, or steps of `step_size`, the last one shorter.
    """

    num_steps: int | None
    step_size: float | None
    max_nfe: int | None
    differentiable: ClassVar[bool] = True
    has_norm: ClassVar[bool] = False

    @abstractmethod
    def odeint_arguments(self) -> dict[str, Any]:
        """Method, tolerances and options, as torchdiffeq calls them."""

    def integrate(
        self, vector_field: VectorField[State], y0: State, ts: Tensor, norm: Norm | None = None
    ) -> Solution[State]:
        """See `Solver.integrate`."""

        def grid(_f: Any, _y0: Any, ts: Tensor) -> Tensor:
            return _grid(ts, self.num_steps, self.step_size)

        counted = CountedVectorField(vector_field, self.max_nfe)
        arguments = self.odeint_arguments()
        arguments["options"]["grid_constructor"] = grid
        return _odeint(counted, {"callback_step": counted.start_and_accept_step}, y0, ts, **arguments)


@dataclass(frozen=True, kw_only=True)
class Fixed(OnGrid):
    """Runge-Kutta methods: euler (order 1), midpoint (2), heun2 (2), heun3 (3), rk4 (4, the 3/8 rule)."""

    method: str
    perturb: bool
    has_tolerances: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_choice("method", self.method, FIXED_METHODS)
        require_grid(self.num_steps, self.step_size)
        require_positive(max_nfe=self.max_nfe)

    def odeint_arguments(self) -> dict[str, Any]:
        """See `OnGrid.odeint_arguments`."""
        return {"method": self.method, "options": {"perturb": self.perturb}}


@dataclass(frozen=True, kw_only=True)
class ExplicitAdams(OnGrid):
    """Adams-Bashforth of variable order up to `max_order`; starts with rk4 and order 3, so the error is of order 4.

    The higher the order, the smaller the steps that are stable (order 4: step size times the largest eigenvalue below
    0.3; order 8: below 0.03). The coefficients are those of equal steps: a `step_size` that does not divide every
    interval costs accuracy.
    """

    max_order: int
    has_tolerances: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_grid(self.num_steps, self.step_size)
        require_positive(max_nfe=self.max_nfe)
        require(3 <= self.max_order <= 11, "max_order must be between 3 and 11", self.max_order)

    def odeint_arguments(self) -> dict[str, Any]:
        """See `OnGrid.odeint_arguments`."""
        # torchdiffeq names the order of the implicit corrector, one more, which is not used here
        return {"method": "explicit_adams", "options": {"max_order": self.max_order + 1}}


@dataclass(frozen=True, kw_only=True)
class ImplicitAdams(OnGrid):
    """Adams-Bashforth-Moulton of variable order up to `max_order`; else like `ExplicitAdams`.

    `rtol` and `atol` end the fixed-point iteration of a step after at most `max_iters` rounds; they choose no steps.
    """

    rtol: float
    atol: float
    max_iters: int
    max_order: int
    has_tolerances: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_grid(self.num_steps, self.step_size)
        require_positive(rtol=self.rtol, atol=self.atol, max_iters=self.max_iters, max_nfe=self.max_nfe)
        require(4 <= self.max_order <= 12, "max_order must be between 4 and 12", self.max_order)

    def odeint_arguments(self) -> dict[str, Any]:
        """See `OnGrid.odeint_arguments`."""
        options = {"max_order": self.max_order, "max_iters": self.max_iters}
        return {"method": "implicit_adams", "rtol": self.rtol, "atol": self.atol, "options": options}


def _grid(ts: Tensor, num_steps: int | None, step_size: float | None) -> Tensor:
    """All step boundaries: every output time, and between two of them equal steps or steps of `step_size`."""
    pieces = []
    for t0, t1 in zip(ts[:-1], ts[1:], strict=True):
        if num_steps is not None:
            offsets = torch.arange(num_steps, dtype=ts.dtype, device=ts.device) * ((t1 - t0) / num_steps)
        else:
            assert step_size is not None
            # A last step of rounding size would be no step: the tolerance is relative to the number of steps.
            count = max(1, math.ceil(abs((t1 - t0).item()) / step_size * (1 - 1e-12)))
            offsets = torch.arange(count, dtype=ts.dtype, device=ts.device) * step_size * torch.sign(t1 - t0)
        pieces.append(t0 + offsets)
    return torch.cat([*pieces, ts[-1:]])


def _odeint(
    counted: CountedVectorField[State],
    callbacks: dict[str, Callable[..., None]],
    y0: State,
    ts: Tensor,
    **arguments: Any,
) -> Solution[State]:
    """One call of torchdiffeq, its callbacks attached, its warning turned into a named failure."""
    vars(counted).update(callbacks)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", _NOT_CONVERGED)
        try:
            ys = odeint(counted, y0, ts, **arguments)
        except UserWarning as warning:
            if not str(warning).startswith(_NOT_CONVERGED):
                raise
            raise counted.failure(Status.NOT_CONVERGED, counted.step_start) from None
    final = tuple(y[-1] for y in ys) if isinstance(ys, tuple) else ys[-1]
    if not all_finite(final):
        raise counted.failure(Status.NON_FINITE, ts[-1])
    return Solution(ys, counted.stats)
