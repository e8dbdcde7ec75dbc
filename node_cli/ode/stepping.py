"""One step of an explicit Runge-Kutta method: the only place where stages are evaluated and combined.

A time `t` is a float on the host in float64, or, where each sample of a batch has its own, a float64 array `(batch,)`.
It is cast once, for the vector field, to the dtype of the state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.control import Tolerance, choose_first_step
from node_cli.ode.states import Time, as_column
from node_cli.ode.tableaus import Array, Row, Tableau

Slope: TypeAlias = Callable[[Tensor, Tensor], Tensor]
# Both ends of a step, the state and the slope at its start: the state at its end, and all stages.
CompiledStep: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Step:
    """One accepted step from `t0` to `t1`, as gradients need it.

    Of the asked times that it reached, the end of the step is tied to `ends`; those `inside` are interpolated, one that
    lies at the end by chance among them. The step was free between `ts[segment[0]]` and `ts[segment[1]]`: as a share of
    that interval its ends stay where they are when the two times move; with `is_anchored`, as a distance from the first
    of the two. Where each sample has its own steps, `segment` holds two arrays, and `accepted` `(batch,)` says who
    moved (None: all).
    """

    t0: Time
    t1: Time
    ends: Outputs
    inside: Outputs
    segment: tuple[Any, Any]
    is_anchored: bool = False
    accepted: Tensor | None = None

    def share(self, which: int, ts: Array) -> Array:
        """How far its start (0) or end (1) goes along with the second time of its segment, and not with the first one.

        From 0 to 1, for times `ts` of all samples, or of each.
        """
        rows = () if ts.ndim == 1 else (np.arange(len(ts)),)
        t, start, end = (self.t0, self.t1)[which], *(ts[(*rows, position)] for position in self.segment)
        length = np.where(end == start, 1.0, end - start)
        share = np.where(t == end, 1.0, 0.0 if self.is_anchored else (t - start) / length)
        return np.where(end == start, float(which), share)


@dataclass(frozen=True, eq=False)
class Outputs:
    """Asked times by their positions in `ts`, and how far into a step each lies, 0 to 1.

    Where each sample has its own steps, `sample` says whose time each one is, and a position is one in its row.
    """

    index: Sequence[int] | Array = ()
    theta: Sequence[float] | Array = ()
    sample: Array | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def place(self) -> tuple[Any, ...]:
        """What picks them from the states at all times, `(times, ...)` or `(times, batch, ...)`."""
        return (list(self.index),) if self.sample is None else (self.index, self.sample)

    @property
    def rows_of_times(self) -> Any:
        """The same for writing: those of all samples lie side by side."""
        return slice(self.index[0], self.index[-1] + 1) if self.sample is None else self.place

    def rows(self, values: Tensor, dim: int = 0) -> Tensor:
        """For each output, along `dim`, what its sample has there; one for all of them, if they are of all samples."""
        if self.sample is None:
            return values.unsqueeze(dim)
        return values.index_select(dim, torch.from_numpy(self.sample).to(values.device))


class Stepper:
    """Takes steps of one method; `stages` `(num_stages, *y.shape)` holds the slopes of the last one."""

    def __init__(self, tableau: Tableau, slope: Slope, like: Tensor, compiled: CompiledStep | None = None) -> None:
        self.tableau = tableau
        self.slope = slope
        self._compiled = compiled
        self.stages = like.new_empty(tableau.num_stages, *like.shape)
        self._slopes = [self.stages[i] for i in range(tableau.num_stages)]
        self._flat = self.stages.view(tableau.num_stages, -1)
        self._columns = [self._flat[:count].t() for count in range(1, tableau.num_stages + 1)]  # of the first stages
        self._weights = weights_of(tableau, like.dtype, like.device)

    def start(self, t: Time, y: Tensor) -> None:
        """Evaluates the first stage of the next step."""
        self._slopes[0].copy_(self.slope(as_tensor(t, y), y))

    def step(self, t0: Time, t1: Time, y: Tensor, *, with_last_stage: bool = True) -> Tensor:
        """The state at `t1` from `y` at `t0`, whose slope is in `stages[0]`.

        A last stage that is the first one of the next step is evaluated for its own step's error and interpolation.
        """
        if self._compiled is not None:
            y1, stages = self._compiled(exact_tensor(t0, y), exact_tensor(t1, y), y, self.stages[0].clone())
            self.stages.copy_(stages)
            return y1
        h = as_factor(t1 - t0, y)
        base = y if isinstance(h, Tensor) else y.reshape(-1)
        stage, c, is_fsal = y, self.tableau.c, self.tableau.is_fsal
        evaluated = len(c) if with_last_stage or not is_fsal else len(c) - 1
        for i, weights in enumerate(self._weights.a, start=1):
            stage = self._combine(base, weights, h).view(y.shape)
            if i < evaluated:
                t = t1 if c[i] == 1.0 else t0 + c[i] * (t1 - t0)
                self._slopes[i].copy_(self.slope(as_tensor(t, y), stage))
        return stage if is_fsal else self._combine(base, self._weights.b, h).view(y.shape)

    def next(self, t: Time, y: Tensor, moved: Tensor | None = None) -> None:
        """Makes the first stage of a step from `y`, where the last step ended, by its last stage or a new evaluation.

        Where not all samples `moved` (a mask that multiplies a state), the others keep their first stage.
        """
        if not self.tableau.is_fsal:
            self.start(t, y)
        elif moved is None:
            self._slopes[0].copy_(self._slopes[-1])
        else:
            self._slopes[0].copy_(torch.where(moved, self._slopes[-1], self._slopes[0]))

    def error(self, t0: Time, t1: Time) -> Tensor:
        """The estimated error of the last step, of the shape of the state."""
        error = torch.mv(self._columns[-1], self._weights.error).view(self.stages.shape[1:])
        return error.mul_(as_factor(t1 - t0, error))

    def first_step(self, tolerance: Tolerance, y: Tensor, longest: Time) -> Tensor:
        """See `choose_first_step`; the slope of `y` is in `stages[0]`."""
        assert self.tableau.error_order is not None
        return choose_first_step(tolerance, self.tableau.error_order, y, self.stages[0], longest)

    def attempt(self, t0: Time, t1: Time, y: Tensor, tolerance: Tolerance) -> tuple[Tensor, Tensor]:
        """The state at `t1`, and the error of the step in units of what is allowed."""
        y1 = self.step(t0, t1, y)
        return y1, tolerance.ratio(self.error(t0, t1), y, y1)

    def keep(self, ys: Tensor, step: Step, y0: Tensor, y1: Tensor) -> None:
        """Puts the states at the asked times of a step from `y0` to `y1` in their places in `ys`."""
        if len(step.inside):
            ys[step.inside.place] = self.interpolate(step, y0)
        if len(step.ends):
            ys[step.ends.place] = step.ends.rows(y1)

    def interpolate(self, step: Step, y: Tensor) -> Tensor:
        """The states at the times inside a step from `y`."""
        outputs, h = step.inside, as_factor(step.t1 - step.t0, y)
        weights = dense_tensor(self.tableau.dense_weights, outputs, y)
        if outputs.sample is None:
            return torch.addmm(y.reshape(1, -1), weights, self._flat, alpha=h).view(-1, *y.shape)
        change = torch.einsum("ns,sn...->n...", weights, outputs.rows(self.stages, 1))
        return torch.addcmul(outputs.rows(y), outputs.rows(h), change)

    def _combine(self, y: Tensor, weights: Tensor, h: float | Tensor) -> Tensor:
        """`y + h sum_i weights_i stages_i`, in one pass over the memory; `y` is 1-dim where `h` is a number."""
        columns = self._columns[len(weights) - 1]
        if isinstance(h, Tensor):
            return torch.addcmul(y, h, torch.mv(columns, weights).view(y.shape))
        return torch.addmv(y, columns, weights, alpha=h)


@dataclass(frozen=True)
class Weights:
    """The coefficients of a tableau on a device.

    For a step backwards: `columns[i]` are the weights of stage i in the result and in the stages from the last one
    down to i + 1; `rows` `(own stages, own stages)` are those of all stages in the result and in the stages, in that
    order. Own stages are all but a last one that the next step shares.
    """

    a: list[Tensor]
    b: Tensor
    error: Tensor
    columns: list[Tensor]
    rows: Tensor


@lru_cache(maxsize=64)
def weights_of(tableau: Tableau, dtype: torch.dtype, device: torch.device) -> Weights:
    """The coefficients in the dtype of the state, put on its device once."""

    def tensor(row: Row) -> Tensor:
        return torch.tensor(row, dtype=dtype, device=device)

    num_own = tableau.num_stages - tableau.is_fsal
    table = np.zeros((num_own, num_own))
    table[0] = tableau.b[:num_own]
    for i in range(1, num_own):
        table[num_own - i, :i] = tableau.a[i - 1]
    columns = [tensor(tuple(table[: num_own - i, i])) for i in range(num_own)]
    a = [tensor(row) for row in tableau.a]
    return Weights(
        a, tensor(tableau.b), tensor(tableau.error_weights or ()), columns, torch.tensor(table).to(columns[0])
    )


def plain_step(tableau: Tableau, vector_field: Slope) -> Callable[..., tuple[Tensor, Tensor]]:
    """`plain_stages` with the stages in one tensor, `(num_stages, *y.shape)`."""
    take_step = plain_stages(tableau, vector_field)

    def step(t0: Tensor, t1: Tensor, y: Tensor, slope: Tensor, with_last_stage: bool = True) -> tuple[Tensor, Tensor]:
        y1, stages = take_step(t0, t1, y, slope, with_last_stage)
        return y1, torch.stack(stages)

    return step


def plain_stages(tableau: Tableau, vector_field: Slope) -> Callable[..., tuple[Tensor, list[Tensor]]]:
    """A step in plain operations, which autograd can differentiate and a compiler can fuse.

    The function maps `t0` and `t1` (float64, 0-dim or `(batch, 1, ..., 1)`), the state and its slope to the state at
    `t1` and the stages; without the last stage, if that is left out and shared.
    """
    a, b, c, is_fsal = tableau.a, tableau.b, tableau.c, tableau.is_fsal

    def step(
        t0: Tensor, t1: Tensor, y: Tensor, slope: Tensor, with_last_stage: bool = True
    ) -> tuple[Tensor, list[Tensor]]:
        h = (t1 - t0).to(y.dtype)
        stages = [slope.to(y.dtype)]
        stage = y
        for i, row in enumerate(a, start=1):
            stage = y + h * _combination(row, stages)
            if i < len(a) or with_last_stage or not is_fsal:
                stages.append(vector_field((t0 + c[i] * (t1 - t0)).to(y.dtype), stage).to(y.dtype))
        return stage if is_fsal else y + h * _combination(b, stages), stages

    return step


def _combination(weights: Row, stages: list[Tensor]) -> Tensor:
    terms = [weight * stage for weight, stage in zip(weights, stages, strict=True) if weight != 0]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def as_tensor(t: Time, like: Tensor) -> Tensor:
    """A time for the vector field: 0-dim, or `(batch, 1, ..., 1)`; no copy from the host waits for the device."""
    if isinstance(t, float):
        return like.new_full((), t)
    return as_column(torch.from_numpy(t).to(like, non_blocking=True, copy=True), like)  # not the solver's own


def exact_tensor(t: Time, like: Tensor) -> Tensor:
    """A time in float64 on the device: 0-dim, or `(batch, 1, ..., 1)`."""
    if isinstance(t, float):
        return torch.full((), t, dtype=torch.float64, device=like.device)
    return as_column(torch.from_numpy(t).to(like.device, non_blocking=True), like)


def as_factor(h: Time, like: Tensor) -> Any:
    """A step size as what a state can be multiplied by."""
    return h if isinstance(h, float) else as_tensor(h, like)


def dense_tensor(weights: Callable[[Array], Array], outputs: Outputs, like: Tensor) -> Tensor:
    """Weights of the stages at each of the outputs, `(outputs, stages)`."""
    return torch.from_numpy(np.ascontiguousarray(weights(np.array(outputs.theta)).T)).to(like)
