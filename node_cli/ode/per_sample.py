"""The step loop in which each sample of a batch is at a time of its own, with a step size of its own or one for all.

All samples are evaluated together until the last one arrives; one that has arrived takes steps of length zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.control import CAUTION, CUT_OFF, Controller, Tolerance, end_of_step, largest_per_sample
from node_cli.ode.integrate import Limits, Run, integrate_adaptively, is_too_short
from node_cli.ode.progress import OutputTimes, Samples
from node_cli.ode.solution import SolveError, SolveStats, Status
from node_cli.ode.stepping import Stepper
from node_cli.ode.tableaus import Array


def integrate_by_error(run: Run, times: OutputTimes | Samples, *how: Any, is_joint: bool) -> Tensor:
    """By `integrate_adaptively`, or, where each sample has a time of its own, by `integrate_by_sample`."""
    if isinstance(times, Samples):
        return integrate_by_sample(run, times, *how, is_joint=is_joint)
    return integrate_adaptively(run, times, *how)


def integrate_by_sample(
    run: Run,
    samples: Samples,
    tolerance: Tolerance,
    controller: Controller,
    limits: Limits,
    first_step: float | None,
    *,
    is_joint: bool,
) -> Tensor:
    """States at the output times, by the rules of `integrate_adaptively`: for each sample, or for all as one.

    The norm of `tolerance` gives a number for each sample, or, if `is_joint`, one for all, which then take steps of one
    size, cut off where a sample comes to its target. Unless `is_joint`, `stats` counts the steps of the sample that
    took most of them, and has the step sizes of all samples.

    Raises:
        SolveError: one of the samples failed.
    """
    stepper, y, ys = run.stepper, run.y0, run.states()
    stepper.start(samples.t, y)
    sizes = _StepSizes(samples, tolerance, controller, limits, run.stats, is_joint)
    if first_step is None:
        longest = sizes.pooled(np.abs(samples.span))
        chosen = stepper.first_step(tolerance, y, longest)
        sizes.step = chosen.double().cpu().numpy()
    else:
        sizes.step += first_step
    accepted, moved = np.zeros(1, dtype=bool), None
    while (t1 := sizes.next_ends()) is not None:
        if accepted.any():
            stepper.next(samples.t, y, moved)
        y1, ratio = stepper.attempt(samples.t, t1, y, tolerance)
        sizes.errors = partial(_scaled_errors, stepper, tolerance, samples.t, t1, y, y1)
        accepted = sizes.accepted(ratio, y, stepper.stages[0])
        if accepted.any():
            y, moved = run.take(ys, samples.step(t1, accepted), y, y1)
    return ys


def _scaled_errors(stepper: Stepper, tolerance: Tolerance, t0: Array, t1: Array, y0: Tensor, y1: Tensor) -> Tensor:
    return tolerance.scaled(stepper.error(t0, t1), y0, y1)


@dataclass
class _StepSizes:
    """The sizes of the steps that are tried: one for each sample, or, if `is_joint`, one for all samples."""

    samples: Samples
    tolerance: Tolerance
    controller: Controller
    limits: Limits
    stats: SolveStats
    is_joint: bool
    errors: Callable[[], Tensor] = field(init=False)  # of the last attempt, in units of what is allowed

    def __post_init__(self) -> None:
        self.step: Array = np.zeros(() if self.is_joint else len(self.samples.t))
        self._ratio = np.zeros_like(self.step)
        self._counts = np.zeros((2, *self.step.shape), dtype=np.int64)  # of steps that were accepted, and rejected
        self._attempts = 0

    def pooled(self, values: Array) -> Array:
        """What was found for each sample `(..., batch)`: the largest of all, if they are stepped as one."""
        found: Array = self.tolerance.largest(values.max(-1)) if self.is_joint else values
        return found

    def next_ends(self) -> Array | None:
        """Where the next steps end; None: every sample has arrived.

        Raises:
            SolveError: there is one attempt too many, or a step is too short.
        """
        samples, limits = self.samples, self.limits
        t, target = samples.t, samples.target
        if limits.accepts_min_step:
            self.step = np.maximum(self.step, limits.min_step)
        t1: Array = end_of_step(np, t, target, self.step, limits.max_step)
        stuck = is_too_short(t, t1, target, self.step, limits)
        found = self.pooled(np.stack([np.abs(t1 - t), samples.active, stuck]))
        self._tried, self._active = found[0], found[1] > 0
        if not self._active.any():
            return None
        if self._attempts >= limits.max_steps:
            raise SolveError(Status.TOO_MANY_STEPS, float(t[np.argmax(np.abs(target - t))]), self.stats.nfe)
        if found[2].any():
            if self.is_joint and self._attempts:  # all are stuck, for the sake of the one with the largest error
                errors = largest_per_sample(self.errors()).nan_to_num(torch.inf).double().cpu().numpy()
                stuck = errors >= self.pooled(errors)
            finite = np.isfinite(np.broadcast_to(self._ratio, t.shape)[np.argmax(stuck)])
            raise self._failure(Status.STEP_UNDERFLOW if finite else Status.NON_FINITE, stuck)
        self._attempts += 1
        return t1

    def accepted(self, ratio_of_errors: Tensor, y: Tensor, dy: Tensor) -> Array:
        """Which of the steps from `y`, where the slope is `dy`, are good enough, by what `attempt` measured.

        If one of the errors is no number, no sample moves: a slope that is NaN would spoil the gradients of all others.

        Raises:
            SolveError: a sample starts from NaN or infinity.
        """
        tried, active, stats = self._tried, self._active, self.stats
        ratio = ratio_of_errors.double().cpu().numpy()  # the one wait for the device
        self._ratio = ratio = np.where(active, ratio, 0.0)
        kept: Array = np.zeros_like(active)
        if not np.isfinite(ratio).all():
            finite = torch.isfinite(y + dy).reshape(len(y), -1).all(1).cpu().numpy()
            hopeless = ~finite & ~np.isfinite(ratio)
            if self.pooled(hopeless).any():
                raise self._failure(Status.NON_FINITE, hopeless)
            rejected = ~np.isfinite(ratio)
            self.controller.refuse_growth(rejected)
            proposed = np.where(rejected, tried * self.controller.dfactor, self.step)
        else:
            kept = active & self.limits.accept(np.minimum(self.step, tried), ratio)
            rejected = active & ~kept
            proposed = tried * self.controller.factor(ratio)
        if self.is_joint and self._attempts == 1:
            stats.next_first_step = CAUTION * float(proposed)
        self.step = np.where(kept & (tried < CUT_OFF * self.step), np.maximum(self.step, proposed), proposed)
        self._counts += (kept, rejected)
        stats.num_accepted, stats.num_rejected = self._counts.reshape(2, -1).max(1).tolist()
        stats.step_sizes.extend(np.extract(kept, tried).tolist())
        stats.next_step = float(self.step) if self.is_joint else None
        return kept

    def _failure(self, status: Status, failed: Array) -> SolveError:
        """Of the first of the samples that `failed`; none: one of another process did."""
        sample = int(np.argmax(failed))
        detail = f"sample {sample}: " if failed.any() else ""
        return SolveError(status, float(self.samples.t[sample]), self.stats.nfe, detail)
