"""The methods of torchdiffeq: those that our own engine does not have, and a peer to compare it with.

Time is kept in float64 and cast once, to the dtype of the state, for the vector field.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchdiffeq import odeint

from node_cli.ode import control, states
from node_cli.ode.base import NormOfParts, Solver, VectorField
from node_cli.ode.checks import require, require_choice, require_grid, require_positive, require_step_control
from node_cli.ode.errors import ArgumentError
from node_cli.ode.solution import Solution, State, Status
from node_cli.ode.vector_field import CountedVectorField, all_finite

ADAPTIVE_METHODS = ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun")
ADAMS_METHODS = ("explicit_adams", "implicit_adams")
GRID_METHODS = ("euler", "midpoint", "heun2", "heun3", "rk4", *ADAMS_METHODS)

_OPTIONS = {  # torchdiffeq's, by the methods that read them; it only warns of an option that a method does not read
    **dict.fromkeys(("first_step", "min_step", "max_step", "safety", "ifactor", "dfactor"), ADAPTIVE_METHODS),
    "perturb": GRID_METHODS,
    "max_order": ADAMS_METHODS,
    "max_iters": ("implicit_adams",),
}
_NOT_CONVERGED = "Functional iteration did not converge"  # torchdiffeq only warns


@dataclass(frozen=True, kw_only=True)
class Torchdiffeq(Solver):
    """`torchdiffeq.odeint`. An option that is None is torchdiffeq's own; one that `method` does not read must be None.

    Embedded Runge-Kutta pairs whose step size follows the estimated error: dopri8 (order 8, Prince and Dormand 1981),
    dopri5 (5, Dormand and Prince 1980), bosh3 (3, Bogacki and Shampine 1989), fehlberg2 (2, Fehlberg 1969; its error
    estimate is loose), adaptive_heun (2). Every output time ends a step, but dopri5 interpolates (order 4) at those
    before the last: the interpolation of the other methods is worse than their steps.

    On a grid, of `num_steps` equal steps between two output times, or of steps of `step_size`, the last one shorter:
    euler (order 1), midpoint (2), heun2 (2), heun3 (3), rk4 (4, the 3/8 rule), and the multistep methods
    explicit_adams (Adams-Bashforth) and implicit_adams (Adams-Bashforth-Moulton), of variable order up to `max_order`.
    Those start with rk4 at order 3, so the error is of order 4; the higher the order, the smaller the steps that are
    stable (explicit, order 4: step size times the largest eigenvalue below 0.3; order 8: below 0.03). Their
    coefficients are those of equal steps: a `step_size` that does not divide every interval costs accuracy.

    `rtol` and `atol` are those of a step, or end the fixed-point iteration of a step of implicit_adams after at most
    `max_iters` rounds; the other methods on a grid do not read them.

    `own_options`, from `odeint`, are torchdiffeq's `options` as they are, with its meanings; see `with_own_options`.
    """

    method: str
    rtol: float
    atol: float
    first_step: float | None
    min_step: float | None
    max_step: float | None
    safety: float | None
    ifactor: float | None
    dfactor: float | None
    num_steps: int | None
    step_size: float | None
    perturb: bool | None
    max_order: int | None
    max_iters: int | None
    max_steps: int | None
    max_nfe: int | None
    own_options: Mapping[str, Any] | None = None
    differentiable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("method", self.method, ADAPTIVE_METHODS + GRID_METHODS)
        if self.own_options is None:
            self._check_keys()
        if self.own_options is None and self.method in GRID_METHODS:
            require_grid(self.num_steps, self.step_size)
        control.require_tolerances(self.rtol, self.atol)
        require_positive(first_step=self.first_step, max_iters=self.max_iters)
        require_positive(max_steps=self.max_steps, max_nfe=self.max_nfe)
        require_step_control(vars(self))
        low, high = (3, 11) if self.method == "explicit_adams" else (4, 12)
        order_fits = self.max_order is None or low <= self.max_order <= high
        require(order_fits, f"max_order must be between {low} and {high}", self.max_order)

    @classmethod
    def with_own_options(
        cls,
        method: str,
        rtol: Any,
        atol: Any,
        options: Mapping[str, Any],
        max_steps: int | None,
        max_nfe: int | None,
        **keys: Any,
    ) -> Torchdiffeq:
        """A solver that passes `options` on; all settings of our own but the bounds are None."""
        keys |= dict.fromkeys((*_OPTIONS, "num_steps", "step_size"))
        keys |= {"max_steps": max_steps, "max_nfe": max_nfe, "own_options": options}
        return cls(method=method, rtol=rtol, atol=atol, **keys)

    def _check_keys(self) -> None:
        """Raises ArgumentError with all that the method lacks, and all that it does not read."""
        readers = {**_OPTIONS, **dict.fromkeys(("num_steps", "step_size"), GRID_METHODS)}
        needs = []
        if self.method in GRID_METHODS and self.num_steps is None and self.step_size is None:
            needs.append("{num_steps} or {step_size}")
        if self.method in ADAMS_METHODS and self.max_order is None:
            needs.append("{max_order}")
        unread = [key for key in readers if vars(self)[key] is not None and self.method not in readers[key]]
        if unread:
            needs.append(f"no {', '.join(f'{{{key}}}' for key in unread)}, which it does not read")
        if needs:
            raise ArgumentError("{method}={got} needs " + ", and ".join(needs), got=self.method)

    @property
    def has_tolerances(self) -> bool:
        """See `Solver.has_tolerances`."""
        return self.method in ADAPTIVE_METHODS or self.method == "implicit_adams"

    @property
    def has_norm(self) -> bool:
        """See `Solver.has_norm`."""
        return self.method in ADAPTIVE_METHODS

    def integrate(
        self,
        vector_field: VectorField[State],
        y0: State,
        ts: Tensor,
        *,
        norm: NormOfParts | None = None,
        first_step: float | None = None,
    ) -> Solution[State]:
        """See `Solver.integrate`.

        Raises:
            ValueError: no solve can start from `y0` or `ts`, or times repeat.
        """
        times = states.checked_start(y0, ts)
        require(len(set(times)) == len(times), "ts must be strictly increasing or decreasing", times)
        ts = ts.clone()  # whatever the vector field does to its arguments, the caller's stay as they are
        y0 = tuple(part.clone() for part in y0) if isinstance(y0, tuple) else y0.clone()
        counted = CountedVectorField(vector_field, self.max_nfe, self.max_steps)
        vars(counted).update(self._callbacks(counted))
        options = self._options(ts)
        if self.has_norm and norm is not None:
            options["norm"] = norm
        with warnings.catch_warnings(), self.explained(y0):
            warnings.filterwarnings("error", _NOT_CONVERGED)
            try:
                ys = odeint(counted, y0, ts, method=self.method, rtol=self.rtol, atol=self.atol, options=options)
            except UserWarning as warning:
                if not str(warning).startswith(_NOT_CONVERGED):
                    raise
                raise counted.failure(Status.NOT_CONVERGED, counted.step_start) from None
            if not all_finite(tuple(y[-1] for y in ys) if isinstance(ys, tuple) else ys[-1]):
                raise counted.failure(Status.NON_FINITE, ts[-1])
        return Solution(ys, counted.stats)

    def _options(self, ts: Tensor) -> dict[str, Any]:
        """What torchdiffeq gets as `options`."""
        if self.own_options is not None:
            return dict(self.own_options)
        options = {key: vars(self)[key] for key in _OPTIONS if vars(self)[key] is not None}
        if self.method == "explicit_adams":
            options["max_order"] += 1  # torchdiffeq names the order of the corrector, one more, which is not used here
        return options | self._time_options(ts)

    def _callbacks(self, counted: CountedVectorField[State]) -> dict[str, Any]:
        """What torchdiffeq calls at each step, and finds as attributes of the vector field."""
        if self.method in GRID_METHODS:
            return {"callback_step": counted.start_and_accept_step}
        return {
            "callback_step": counted.start_step,
            "callback_accept_step": counted.accept_step,
            "callback_reject_step": counted.reject_step,
        }

    def _time_options(self, ts: Tensor) -> dict[str, Any]:
        """Where steps end whatever the error."""
        if self.method in GRID_METHODS:
            return {"grid_constructor": lambda _f, _y0, ts: _grid(ts, self.num_steps, self.step_size)}
        return {"dtype": ts.dtype, "step_t": ts[-1:] if self.method == "dopri5" else ts[1:]}


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
