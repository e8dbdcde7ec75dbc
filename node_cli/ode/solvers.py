"""What a `solver` config names: explicit Runge-Kutta methods on a fixed grid, or with steps that the error chooses."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from node_cli.ode import control, synchronised
from node_cli.ode.base import Solver
from node_cli.ode.checks import require, require_choice, require_grid, require_positive, require_step_control
from node_cli.ode.control import Controller, Tolerance
from node_cli.ode.graphs.whole import integrate_grid_in_blocks, integrate_in_blocks
from node_cli.ode.integrate import Limits, Run, integrate_on_grid
from node_cli.ode.per_sample import integrate_by_error
from node_cli.ode.progress import OutputTimes, Samples
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.tableaus import ADAPTIVE_METHODS, TABLEAUS, Array, Tableau

# A straight line between the two ends of a step: y + theta h sum_i b_i k_i.
LINEAR = {name: replace(tableau, dense=tuple((b,) for b in tableau.b)) for name, tableau in TABLEAUS.items()}
FIRST_STEPS = ("chosen", "carried")
OUTPUTS = ("interpolate", "step")
BATCHINGS = ("joint", "per_sample")
NORMS = {"rms": (control.rms, control.rms_per_sample), "max": (control.largest, control.largest_per_sample)}


@dataclass(frozen=True, kw_only=True)
class Fixed(RungeKutta):
    """Steps that nothing but the config chooses, by any method of `tableaus.py`.

    Between two output times, those of all samples or of one, lie `num_steps` equal steps, or steps of `step_size`, the
    last one shorter. With `passes_outputs`, as in torchdiffeq, steps of `step_size` run from the first output time to
    the last one, and the outputs between are interpolated linearly: of order 2, whatever the method.
    """

    num_steps: int | None
    step_size: float | None
    passes_outputs: bool = False
    has_tolerances: ClassVar[bool] = False
    has_norm: ClassVar[bool] = False
    has_own_steps: ClassVar[bool] = False
    shares_steps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("method", self.method, tuple(TABLEAUS))
        require_grid(self.num_steps, self.step_size)

    @property
    def tableau(self) -> Tableau:
        """See `RungeKutta.tableau`."""
        return (LINEAR if self.passes_outputs else TABLEAUS)[self.method]

    def _grid(self, ts: Array, steps_of_no_length: int) -> Array:
        """The ends of the steps along the rows of `ts`, `(rows, steps)`; a row of fewer steps stays at its last time.

        Every time in `ts` ends a step exactly. Between equal times lie so many `steps_of_no_length`.
        """
        spans = np.diff(ts)
        if self.num_steps is not None:
            counts, sizes = np.full(spans.shape, self.num_steps), spans / self.num_steps
        else:
            assert self.step_size is not None
            # A last step of rounding size, of times in float32 for odeint, would be no step.
            rounding = 1e-6 if self.passes_outputs else 1e-12
            counts = np.maximum(1, np.ceil(np.abs(spans) / self.step_size * (1 - rounding)).astype(int))
            sizes = np.copysign(self.step_size, spans)
        counts = np.where(spans == 0, steps_of_no_length, counts)
        before, total = counts.cumsum().reshape(counts.shape) - counts, counts.sum(1)
        columns = (before, counts, ts[:, :-1], sizes, ts[:, 1:])
        first, count, start, size, end = (np.repeat(column.ravel(), counts.ravel()) for column in columns)
        number = np.arange(1, len(count) + 1) - first
        ends = np.repeat(ts[:, -1:], total.max(), 1)
        ends[np.arange(total.max()) < total[:, None]] = np.where(number == count, end, start + number * size)
        return ends

    def _steps(self, run: Run, norm: control.Norm | None, first_step: float | None) -> Tensor:
        ts: Array = np.atleast_2d(run.ts)
        ts, stepping_onto = ts[:, [0, -1]] if self.passes_outputs else ts, not self.passes_outputs
        if isinstance(run.ts, list):
            ends = self._grid(ts, steps_of_no_length=1)[0].tolist()
            times: OutputTimes | Samples = OutputTimes(run.ts, stepping_onto)
        else:
            ends = self._grid(ts, steps_of_no_length=0).T
            times = Samples.of(run.ts, run.y0, stepping_onto=stepping_onto)
        integrate = integrate_on_grid if run.graphs is None else integrate_grid_in_blocks
        return integrate(run, times, ends, is_anchored=self.step_size is not None)


@dataclass(frozen=True, kw_only=True)
class Adaptive(RungeKutta):
    """An embedded pair whose step size follows the estimated error of a step.

    `rtol` and `atol` (a number, or one for each channel, dimension 1 of the state) bound that error in the `norm` rms
    or max. `first_step` is `chosen` from the state and its slope, `carried` over from the last
    solve of the same ODE block, or a number. `outputs` before the last are reached by interpolation or by stepping onto
    them. `batching` is `joint`, one step for all, or `per_sample`, where each sample keeps
    its own time and step and no sample sees the others.

    `odeint` may also give tolerances as tensors that broadcast with the state, and a norm as a function of it, 0-dim,
    or `(batch,)` per sample. A step that would have to be shorter than `min_step` fails the solve, or, with
    `accepts_min_step`, is taken at `min_step` whatever its error.

    With `sync_steps`, processes that each have a share of a batch take the steps of the whole batch; all must then make
    the same solves in the same order.
    """

    rtol: float
    atol: float | list[float]
    norm: str
    first_step: float | str
    min_step: float
    max_step: float | None
    safety: float
    ifactor: float
    dfactor: float
    pcoeff: float
    icoeff: float
    dcoeff: float
    max_steps: int | None
    outputs: str
    batching: str
    sync_steps: bool
    accepts_min_step: bool = False
    has_tolerances: ClassVar[bool] = True
    has_norm: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("method", self.method, ADAPTIVE_METHODS)
        if isinstance(self.norm, str):
            require_choice("norm", self.norm, tuple(NORMS))
        require_choice("outputs", self.outputs, OUTPUTS)
        require_choice("batching", self.batching, BATCHINGS)
        require_positive(max_steps=self.max_steps)
        require_step_control(vars(self))
        control.require_tolerances(self.rtol, self.atol)
        if isinstance(self.first_step, str):
            rule = f"first_step must be a number or one of {', '.join(FIRST_STEPS)}"
            require(self.first_step in FIRST_STEPS, rule, self.first_step)
        else:
            require_positive(first_step=self.first_step)
        require(self.icoeff > 0, "icoeff must be positive", self.icoeff)
        if self.sync_steps:
            rule = "batching must be joint with sync_steps (a sample's own steps depend on no other)"
            require(self.batching == "joint", rule, self.batching)

    @property
    def tableau(self) -> Tableau:
        """See `RungeKutta.tableau`."""
        return TABLEAUS[self.method]

    @property
    def has_own_steps(self) -> bool:
        """See `RungeKutta.has_own_steps`."""
        return self.batching == "per_sample"

    @property
    def shares_steps(self) -> bool:
        """See `RungeKutta.shares_steps`."""
        return self.sync_steps and synchronised.has_others()

    def _all_finite(self, y0: Any) -> bool:
        if not self.shares_steps:
            return super()._all_finite(y0)
        first = y0[0] if isinstance(y0, tuple) else y0
        return synchronised.all_agree(super()._all_finite(y0), first.device)

    def _steps(self, run: Run, norm: control.Norm | None, first_step: float | None) -> Tensor:
        per_sample, y0 = self.has_own_steps and norm is None, run.y0
        if per_sample and y0.dim() == 0:
            raise ValueError("batching=per_sample needs a state (batch, ...), got a 0-dim one")
        norm = norm or (NORMS[self.norm][per_sample] if isinstance(self.norm, str) else self.norm)
        rtol, atol = self._like(y0, self.rtol), self._like(y0, self.atol)
        tiny = torch.finfo(y0.dtype).tiny  # not 0, which an error of 0 could not be compared with
        atol = atol.clamp(min=tiny) if isinstance(atol, Tensor) else max(atol, tiny)
        tolerance = Tolerance(rtol, atol, norm)
        if self.shares_steps:
            tolerance = synchronised.of_all_processes(tolerance, y0.device)
        controller, limits = self._control
        stepping_onto, first = self.outputs == "step", None if per_sample else first_step
        if not isinstance(self.first_step, str):
            first = float(self.first_step)
        if isinstance(run.ts, list) and not per_sample:
            times: OutputTimes | Samples = OutputTimes(run.ts, stepping_onto)
        else:
            times = Samples.of(run.ts, y0, stepping_onto=stepping_onto)
        if run.graphs is None:
            own = replace(controller)  # which remembers the last errors
            ys = integrate_by_error(run, times, tolerance, own, limits, first, is_joint=not per_sample)
        else:
            ys = integrate_in_blocks(run, times, tolerance, controller, limits, first, is_joint=not per_sample)
        if self.first_step != "carried":
            run.stats.next_first_step = None
        return ys

    @cached_property
    def _control(self) -> tuple[Controller, Limits]:
        """As new, and the bounds of the steps: making them again takes long beside a small solve."""
        assert self.tableau.error_order is not None
        coefficients = (self.safety, self.ifactor, self.dfactor, self.pcoeff, self.icoeff, self.dcoeff)
        bounds = (self.min_step, self.max_step or math.inf, self.max_steps or math.inf)
        limits = Limits(*bounds, accepts_min_step=self.accepts_min_step)
        return Controller(self.tableau.error_order, *coefficients), limits

    @staticmethod
    def _like(y: Tensor, tolerance: float | list[float] | Tensor) -> float | Tensor:
        """A tolerance as what broadcasts with the state."""
        if isinstance(tolerance, list):
            if y.dim() < 2 or y.shape[1] != len(tolerance):
                raise ValueError(
                    f"atol has {len(tolerance)} values, but the state of shape {tuple(y.shape)} has another number of "
                    "channels (dimension 1)"
                )
            return y.new_tensor(tolerance).view(-1, *(1,) * (y.dim() - 2))
        if isinstance(tolerance, Tensor):
            control.require_broadcast(tolerance, y)
            return tolerance.to(y)
        return tolerance


def fallback_of(solver: Solver) -> Fixed:
    """What solves a batch that `solver` has failed on, where its `on_failure` is `fallback`."""
    steps = solver.fallback_steps
    return Fixed(
        method="rk4",
        num_steps=steps,
        step_size=None,
        max_nfe=None,
        compile="none",
        on_failure="raise",
        fallback_steps=steps,
    )
