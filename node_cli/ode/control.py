"""Step-size control: how far an error is from what is allowed, and which step to try next.

Everything works on one number for a whole state, or on one for each sample `(batch,)`, alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.checks import require
from node_cli.ode.states import Time, require_no_gradient

SHORTER = 0.9  # a step that is tried again is at most so long as before
SMALLEST_RATIO = 1e-10  # an error of zero would ask for an infinite step
# Of the first step that is chosen: bolder ones are rejected more often, or leave an error that has all the way to grow.
FIRST_STEP = 1.25
STRETCH = 1.05  # a step that ends so little before its target is stretched to it
ROUNDING = 1 + 1e-12  # of a longest step by the rounding of times
CUT_OFF = 0.999  # a step that its target made shorter than this says nothing against the length that was meant
CAUTION = 0.6  # of the first step that an error would have allowed: what goes wrong there has all the way to grow
Norm = Callable[[Tensor], Tensor]  # of an error in units of what is allowed: 0-dim, or `(batch,)`


@dataclass(frozen=True)
class Tolerance:
    """What error of a step is allowed: `atol + rtol |y|`, element by element; `atol` may be one for each channel."""

    rtol: float | Tensor
    atol: float | Tensor
    norm: Norm
    largest: Callable[[Any], Any] = lambda values: values  # each number as the largest that a process has there

    def ratio(self, error: Tensor, y0: Tensor, y1: Tensor) -> Tensor:
        """The norm of the error in units of what is allowed; 1 is just good enough."""
        return self.norm(self.scaled(error, y0, y1))

    def scaled(self, error: Tensor, y0: Tensor, y1: Tensor) -> Tensor:
        """The error in units of what is allowed; the argument is overwritten."""
        return error.div_(self.scale(torch.maximum(y0.abs(), y1.abs())))

    def scale(self, size: Tensor) -> Tensor:
        """What is allowed for states of this magnitude; the argument is overwritten."""
        return size.mul_(self.rtol).add_(self.atol)


@dataclass(eq=False)
class Controller:
    """A PID controller of the step size (Soderlind 2003, "Digital filters in adaptive time-stepping").

    With r_n the error ratio of step n and k one more than the order of the error estimate, a step is changed by

        safety r_n^(-(icoeff + pcoeff + dcoeff) / k) r_(n-1)^((pcoeff + 2 dcoeff) / k) r_(n-2)^(-dcoeff / k),

    but by no more than `ifactor` and no less than `dfactor`. A step that is tried again is shorter by a tenth at least,
    and the step after it is no longer: what an error that was too large has found out about is likely still near
    (Hairer, Norsett, Wanner, *Solving Ordinary Differential Equations I*, section II.4).
    """

    error_order: int
    safety: float
    ifactor: float
    dfactor: float
    pcoeff: float
    icoeff: float
    dcoeff: float
    _last: Any = 1.0  # ratios of the last two accepted steps
    _before: Any = 1.0
    _may_grow: Any = True

    def factor(self, ratio: Any) -> Any:
        """What the step just tried is to be multiplied by; `ratio` is NaN or infinite where the step failed."""
        factor, *memory = self.changed(np, ratio, self._last, self._before, self._may_grow)
        self._last, self._before, self._may_grow = memory
        return factor

    def changed(self, xp: Any, ratio: Any, last: Any, before: Any, may_grow: Any) -> tuple[Any, Any, Any, Any]:
        """The factor, and the memory after it: ratios of the last two accepted steps, whether the next may be longer.

        `xp` is numpy, or torch for float64 tensors.
        """
        k = self.error_order + 1
        bounded = xp.clip(ratio, SMALLEST_RATIO, None)
        factor = (
            self.safety
            * bounded ** (-(self.icoeff + self.pcoeff + self.dcoeff) / k)
            * last ** ((self.pcoeff + 2 * self.dcoeff) / k)
            * before ** (-self.dcoeff / k)
        )
        accepted = ratio <= 1
        longest = xp.where(may_grow, xp.full_like(factor, self.ifactor), 1.0)
        longest = xp.where(accepted, longest, SHORTER)
        factor = xp.minimum(xp.clip(xp.where(xp.isfinite(ratio), factor, self.dfactor), self.dfactor, None), longest)
        return factor, xp.where(accepted, bounded, last), xp.where(accepted, last, before), accepted

    def refuse_growth(self, rejected: Any) -> None:
        """Of a step, or of those of some samples, that was rejected without asking for its `factor`."""
        self._may_grow = self._may_grow & ~rejected


def require_tolerances(rtol: float | Tensor, atol: float | list[float] | Tensor) -> None:
    """Both must be 0 or more, a gradient of none, and not both 0."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if isinstance(value, Tensor):
            require_no_gradient(name, value)
        require(_extremes(value)[0] >= 0, f"{name} must be 0 or more", value)
    both = _extremes(rtol)[1] == 0 and _extremes(atol)[0] == 0
    require(not both, "rtol and atol must not both be 0", f"rtol={rtol} atol={atol}")


def require_visible(rtol: float | Tensor, atol: float | list[float] | Tensor, dtype: torch.dtype) -> None:
    """Raises ValueError for tolerances so far below the rounding of a state that no step could be held to them."""
    rounding = torch.finfo(dtype).eps
    if max(_extremes(rtol)[1], _extremes(atol)[1]) < rounding / 16:
        cure = ", or solve in float64" if dtype == torch.float32 else ""
        raise ValueError(
            f"rtol={rtol} and atol={atol} are below what a state in {str(dtype).removeprefix('torch.')} can resolve, "
            f"{rounding:.1g} of its size: raise one of them{cure}"
        )


def _extremes(tolerance: float | list[float] | Tensor) -> tuple[float, float]:
    """The least and the greatest value; NaN where there is one."""
    if not isinstance(tolerance, (list, Tensor)):
        return tolerance, tolerance
    values = torch.as_tensor(tolerance)
    return (float(values.min()), float(values.max())) if values.numel() else (0.0, 0.0)


def require_broadcast(tolerance: Tensor, y: Tensor) -> None:
    """Raises ValueError for a tolerance that is not one for each number of a state."""
    try:
        fits = torch.broadcast_shapes(tolerance.shape, y.shape) == y.shape
    except RuntimeError:
        fits = False
    shapes = f"{tuple(tolerance.shape)} for a state of shape {tuple(y.shape)}"
    require(fits, "a tensor of tolerances must broadcast with the state", shapes)


def end_of_step(xp: Any, t: Any, target: Any, step: Any, longest: float) -> Any:
    """Where a step of this size ends: exactly at the target if it comes near, half way to it if two will do.

    `xp` is numpy, or torch for float64 tensors.
    """
    left = abs(target - t)
    length = xp.minimum(xp.clip(step, None, longest), left / 2)
    is_near = left <= xp.clip(STRETCH * step, None, longest * ROUNDING)
    return xp.where(is_near, target, t + xp.copysign(length, target - t))


def choose_first_step(
    tolerance: Tolerance, error_order: int, y0: Tensor, dy0: Tensor, longest: Time | Tensor
) -> Tensor:
    """A first step size, a magnitude, from the state and its slope; its own error is what corrects it.

    In units of what is allowed, the state is taken to change by `E (h / T)^k` beyond what a step of length h follows,
    where T is the time in which it changes by its own size, at most the interval, `E = T |dy0|`, and k is one more than
    `error_order`. A state or slope of zero says nothing about T, which is then a hundredth of the interval.

    `longest` is the length of the interval, or of that of each sample. All of it stays on the device.
    """
    scale = tolerance.scale(y0.abs())
    size, speed = tolerance.norm(y0 / scale), tolerance.norm(dy0 / scale)
    bound = longest.to(size) if isinstance(longest, Tensor) else size.new_tensor(longest)
    period = torch.where((size < 1) | (speed == 0), bound / 100, torch.minimum(size / speed, bound))
    change = (period * speed).clamp(min=1)
    chosen = FIRST_STEP * period * change ** (-1 / (error_order + 1))
    return torch.where(speed.isfinite(), chosen, 1e-6).minimum(bound)


def rms(ratios: Tensor) -> Tensor:
    """Root mean square over everything."""
    norm: Tensor = _norm(ratios) / ratios.numel() ** 0.5
    return norm


def largest_rms(parts: Sequence[Tensor]) -> Tensor:
    """The largest of the parts' root mean squares: a small part is held to the tolerance as a large one is."""
    return torch.stack([rms(part) for part in parts]).amax()


def largest_rms_per_sample(parts: Sequence[Tensor]) -> Tensor:
    """The same for each sample, `(batch,)`; the parts are `(batch, ...)`."""
    return torch.stack([rms_per_sample(part) for part in parts]).amax(0)


def largest(ratios: Tensor) -> Tensor:
    """Greatest magnitude over everything."""
    return _norm(ratios, math.inf)


def rms_per_sample(ratios: Tensor) -> Tensor:
    """Root mean square of each sample, `(batch,)`."""
    rows = ratios.reshape(ratios.shape[0], -1)  # not len(), which a graph would take for a constant
    norm: Tensor = _norm(rows, 2, 1) / rows.shape[1] ** 0.5
    return norm


def largest_per_sample(ratios: Tensor) -> Tensor:
    """Greatest magnitude in each sample, `(batch,)`."""
    return _norm(ratios.reshape(ratios.shape[0], -1), math.inf, 1)


def _norm(ratios: Tensor, order: float = 2, dim: int | None = None) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(ratios, order, dim=dim)
    return norm
