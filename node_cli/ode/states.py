"""What a solve starts from: states and times that are refused, tuple states as one tensor, autocast kept out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.errors import ArgumentError
from node_cli.ode.solution import State
from node_cli.ode.tableaus import Array

Parts = tuple[Tensor, ...]
Time: TypeAlias = float | Array
_DTYPES = (torch.float32, torch.float64)
MIN_TIMES = 512  # that a dtype must be able to tell apart in an interval


def require_state(y0: Tensor | Parts) -> None:
    """Raises ValueError for a state that no solve can start from."""
    if isinstance(y0, Tensor) and y0.dtype in _DTYPES and y0.numel():
        return
    parts = y0 if isinstance(y0, tuple) else (y0,)
    for part in parts:
        if part.is_complex():
            raise ValueError(
                f"y0 must be real, got {part.dtype}: solve for its real and imaginary parts (torch.view_as_real)"
            )
        if part.dtype not in _DTYPES:
            raise ValueError(f"y0 must be float32 or float64, got {part.dtype}: convert it with .float()")
    if not parts or any(part.numel() == 0 for part in parts):
        raise ValueError(f"y0 must not be empty, got shape {[tuple(part.shape) for part in parts]}")
    if len({(part.dtype, part.device) for part in parts}) > 1:
        raise ValueError(f"the parts of y0 must share dtype and device, got {[(p.dtype, p.device) for p in parts]}")


def require_slope(dy: Any) -> None:
    """Raises ValueError for what a vector field must not return."""
    if not isinstance(dy, Tensor):
        raise ValueError(f"the vector field must return a tensor, got {type(dy).__name__}: torch.full_like(y, ...)")


def require_no_gradient(name: str, value: Tensor) -> None:
    """Raises ValueError for a number that would have a gradient elsewhere, and gets none here."""
    if value.requires_grad:
        raise ValueError(f"{name} must have no gradient: detach it")


def output_times(ts: Tensor, dtype: torch.dtype | None = None) -> list[float]:
    """The times on the host, in float64; they may repeat.

    Raises:
        ValueError: they are fewer than two, or refused by `require_order`.
    """
    if ts.dim() != 1 or len(ts) < 2:
        raise ValueError(f"ts must be 1-dim with at least two times, got shape {tuple(ts.shape)}")
    times: list[float] = on_host(ts)
    _require_order(tuple(times), dtype)
    return times


@lru_cache(maxsize=32)
def _require_order(times: tuple[float, ...], dtype: torch.dtype | None) -> None:
    """`require_order` of one row: checking times again takes long beside a small solve."""
    require_order(np.array([times]), dtype)


def on_host(ts: Tensor) -> Any:
    """The times in float64, as a list, or as one of rows."""
    return ts.tolist() if ts.is_floating_point() else ts.cpu().double().tolist()  # Apple's GPUs have no float64


def require_order(rows: Array, dtype: torch.dtype | None = None) -> None:
    """Raises ValueError for times that no solve can go through: one row, or one for each sample.

    With the `dtype` of a state, also where a time in it hardly moves along the longest row: a vector field sees times
    in that dtype. Seconds since 1970 in float32 are known to 128 s only.
    """

    def refuse(holds: Any, rule: str) -> None:
        if not holds.all():
            sample = int(np.argmin(holds))
            name = "ts" if len(rows) == 1 else f"ts of sample {sample}"
            raise ValueError(name + rule.format(row=rows[sample].tolist(), last=rows[sample, -1]))

    refuse(np.isfinite(rows).all(1), " must be finite, got {row}")
    later, earlier = rows[:, 1:], rows[:, :-1]
    in_order = (later >= earlier).all(1) | (later <= earlier).all(1)
    refuse(in_order, " must be increasing or decreasing, got {row}")
    if dtype is not None:
        interval, rounding = np.abs(rows[:, -1] - rows[:, 0]), torch.finfo(dtype).eps * np.abs(rows).max(1)
        told_apart = (interval == 0) | (interval.max() >= MIN_TIMES * rounding)
        refuse(
            told_apart,
            " from {row[0]:.17g} to {last:.17g} are too close for their size: the vector field gets times in the dtype "
            f"of the state, {str(dtype).removeprefix('torch.')}, which resolves them to "
            f"{rounding[np.argmin(told_apart)]:.2g} only. Count time from another origin (ts - ts[0]), or solve in "
            "float64",
        )


def checked_start(y0: Tensor | Parts, ts: Tensor) -> list[float]:
    """The times of a solve from `y0`, on the host.

    Raises:
        ValueError: no solve can start from `y0`, or a vector field could not tell the times apart.
    """
    require_state(y0)
    if ts.dim() == 2 and not isinstance(y0, tuple):
        raise ArgumentError(
            "ts of shape {shape} has times of each sample's own, which this solver does not take: take {dopri5}, "
            "{fixed} or another Runge-Kutta method of our own",
            shape=tuple(ts.shape),
        )
    return output_times(ts, None if isinstance(y0, tuple) else y0.dtype)


def on_device(values: Array, device: torch.device) -> Tensor:
    """Numbers of the host, without waiting for the device; they may be changed after that, but on a CPU."""
    tensor = torch.from_numpy(values)
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=True)


def as_column(values: Tensor, like: Tensor) -> Tensor:
    """A number as it is; numbers `(batch,)` as `(batch, 1, ..., 1)`, which multiplies a state sample by sample."""
    return values.view(-1, *(1,) * (like.dim() - 1)) if values.dim() else values


@dataclass(frozen=True)
class Layout:
    """How tensors of these `shapes` lie in one: all their numbers `(n,)`, or, `by_sample`, `(batch, n)`."""

    shapes: tuple[torch.Size, ...]
    by_sample: bool = False
    _own: tuple[torch.Size, ...] = field(init=False)  # in a row
    _sizes: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        own = tuple(shape[1:] if self.by_sample else shape for shape in self.shapes)
        object.__setattr__(self, "_own", own)
        object.__setattr__(self, "_sizes", tuple(shape.numel() for shape in own))

    @classmethod
    def of(cls, parts: Sequence[Tensor]) -> Layout:
        """That of these tensors."""
        return cls(tuple(part.shape for part in parts))

    def flatten(self, parts: Sequence[Tensor]) -> Tensor:
        """The parts as one tensor."""
        if self.by_sample:
            return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)
        return torch.cat([part.reshape(-1) for part in parts])

    def flatten_slope(self, parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """What a vector field returns, as one tensor of the state's dtype.

        Raises:
            ValueError: it has not the shapes of the state.
        """
        shapes = tuple(part.shape for part in parts)
        if shapes != self.shapes:
            raise ValueError(
                f"the vector field must return the shapes of the state, {[tuple(shape) for shape in self.shapes]}, "
                f"got {[tuple(shape) for shape in shapes]}"
            )
        flat = self.flatten(parts)
        return flat if flat.dtype == dtype else flat.to(dtype)

    def split(self, flat: Tensor) -> Parts:
        """Views of the parts; leading dimensions stay."""
        pieces, leading = flat.split_with_sizes(self._sizes, -1), flat.shape[:-1]
        return tuple([piece.view(leading + shape) for piece, shape in zip(pieces, self._own, strict=True)])


def keep_autocast(vector_field: Callable[[Any, Any], State], device_type: str) -> Callable[[Any, Any], State]:
    """The vector field, always evaluated under the autocast of this moment, wherever it is called from."""
    if not torch.is_autocast_enabled(device_type):
        return vector_field
    dtype = torch.get_autocast_dtype(device_type)

    def under_autocast(t: Any, y: Any) -> Any:
        # Without the cache: a weight that was cast without a graph must not be met again where there is one.
        with torch.autocast(device_type, dtype=dtype, cache_enabled=False):
            return vector_field(t, y)

    return under_autocast


def outside_autocast(device_type: str) -> AbstractContextManager[Any]:
    """States and error estimates keep their precision; only the vector field is autocast."""
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
