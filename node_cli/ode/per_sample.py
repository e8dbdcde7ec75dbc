"""The step loops in which each sample of a batch is at a time of its own.

All samples are evaluated together until the last one arrives; one that has arrived takes steps of length zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.control import Controller, Tolerance, choose_first_step, largest_per_sample
from node_cli.ode.integrate import CAUTION, CUT_OFF, ROUNDING, SHORTEST, STRETCH, Limits, Run
from node_cli.ode.solution import SolveError, SolveStats, Status
from node_cli.ode.stepping import Outputs, Step, as_column
from node_cli.ode.tableaus import Array


@dataclass
class Samples:
    """How far each sample has come through its row of `ts` `(batch, times)`: it is at `t`, and has reached `last`.

    It goes on to the position `end`. With `stepping_onto` every output time ends a step, else only that one does.
    """

    ts: Array
    end: Array
    stepping_onto: bool
    t: Array = field(init=False)
    last: Array = field(init=False)

    def __post_init__(self) -> None:
        self.t = self.ts[:, 0].copy()
        self.last = np.zeros_like(self.end)
        self.span: Array = self.ts[:, -1] - self.ts[:, 0]

    @property
    def active(self) -> Array:
        """Who has not arrived."""
        active: Array = self.last < self.end
        return active

    @property
    def segment(self) -> tuple[Array, Array]:
        """Positions of the output times between which the steps are free."""
        if not self.stepping_onto:
            return np.zeros_like(self.end), self.end
        ahead = np.minimum(self.last + 1, self.end)
        return np.maximum(ahead - 1, 0), ahead

    @property
    def target(self) -> Array:
        """The time that a step aims at; where it is, of a sample that has arrived."""
        target: Array = np.where(self.active, self.ts[np.arange(len(self.ts)), self.segment[1]], self.t)
        return target

    def step(self, t1: Array, moves: Array, *, is_anchored: bool = False) -> Step:
        """The step to `t1` of the samples that take it; the outputs that lie in it count as reached from now on."""
        t0, segment, position = self.t, self.segment, np.arange(self.ts.shape[1])
        is_next = (position > self.last[:, None]) & (position <= segment[1][:, None]) & moves[:, None]
        reached = is_next & (np.where(self.span < 0, -1.0, 1.0)[:, None] * (self.ts - t1[:, None]) <= 0)
        sample, index = np.nonzero(reached)
        theta = (self.ts[sample, index] - t0[sample]) / np.where(t1 == t0, 1.0, t1 - t0)[sample]
        is_end = index == segment[1][sample]
        ends, inside = (Outputs(index[part], theta[part], sample[part]) for part in (is_end, ~is_end))
        self.last = self.last + reached.sum(1)
        self.t = np.where(moves, t1, t0)
        moved = None if moves.all() else torch.from_numpy(moves)
        return Step(t0, t1, ends, inside, segment, is_anchored, moved)


def integrate_on_own_grids(run: Run, samples: Samples, ends: Array, *, is_anchored: bool) -> Tensor:
    """States at the output times; `ends` `(batch, steps)` are the ends of the steps of each sample.

    Raises:
        SolveError: a state is not finite any more, which is looked for once, at the end.
    """
    stepper, stats, y, ys = run.stepper, run.stats, run.y0, run.states()
    sizes: list[Tensor] = []
    moved: Tensor | None = None
    stepper.start(samples.t, y)
    for n, t1 in enumerate(ends.T):
        if n:
            stepper.next(samples.t, y, moved)
        moves = t1 != samples.t
        stats.num_accepted += 1
        stats.step_sizes.extend(np.abs(t1 - samples.t)[moves].tolist())
        y1 = stepper.step(samples.t, t1, y)
        y, moved = _taken(run, samples.step(t1, moves, is_anchored=is_anchored), ys, y, y1)
        sizes.append(largest_per_sample(y))
    failed = torch.isfinite(torch.stack(sizes)).logical_not().nonzero().tolist() if sizes else []
    if failed:
        (n, sample), *_ = failed
        raise SolveError(Status.NON_FINITE, float(ends[sample, n]), stats.nfe, f"sample {sample}: ")
    return ys


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
        chosen = choose_first_step(tolerance, stepper, samples.t, y, samples.span, longest)
        sizes.step = chosen.double().cpu().numpy()
    else:
        sizes.step = np.full_like(sizes.step, first_step)
    accepted: Array = np.full_like(sizes.step, False)
    moved: Tensor | None = None
    while (t1 := sizes.next_ends()) is not None:
        if accepted.any():
            stepper.next(samples.t, y, moved)
        y1 = stepper.step(samples.t, t1, y)
        ratio = tolerance.ratio(stepper.error(samples.t, t1), y, y1)
        accepted = sizes.accepted(ratio.double().cpu().numpy(), y, stepper.stages[0])  # the one wait for the device
        if accepted.any():
            y, moved = _taken(run, samples.step(t1, samples.active & accepted), ys, y, y1)
    return ys


class _StepSizes:
    """The sizes of the steps that are tried: one for each sample, or, if `is_joint`, one for all samples."""

    def __init__(
        self,
        samples: Samples,
        tolerance: Tolerance,
        controller: Controller,
        limits: Limits,
        stats: SolveStats,
        is_joint: bool,
    ) -> None:
        self._samples, self._tolerance, self._controller = samples, tolerance, controller
        self._limits, self._stats, self._is_joint = limits, stats, is_joint
        self.step: Array = np.zeros(() if is_joint else len(samples.t))
        self._ratio = np.zeros_like(self.step)
        self._counts = np.zeros((2, *self.step.shape), dtype=np.int64)  # of steps that were accepted, and rejected
        self._attempts = 0

    def pooled(self, values: Array) -> Array:
        """What was found for each sample `(..., batch)`: the largest of all, if they are stepped as one."""
        found: Array = self._tolerance.largest(values.max(-1)) if self._is_joint else values
        return found

    def next_ends(self) -> Array | None:
        """Where the next steps end; None: every sample has arrived.

        Raises:
            SolveError: there is one attempt too many, or a step is too short.
        """
        t, target, limits = self._samples.t, self._samples.target, self._limits
        if limits.accepts_min_step:
            self.step = np.maximum(self.step, limits.min_step)
        t1 = _ends_of_steps(t, target, self.step, limits.max_step)
        shortest = np.maximum(limits.min_step, SHORTEST * np.spacing(np.abs(t)))
        stuck = (t1 != target) & ((t1 == t) | (self.step < shortest))
        found = self.pooled(np.stack([np.abs(t1 - t), self._samples.active, stuck]))
        self._tried, self._active = found[0], found[1] > 0
        if not self._active.any():
            return None
        if self._attempts >= limits.max_steps:
            raise SolveError(Status.TOO_MANY_STEPS, float(t[np.argmax(np.abs(target - t))]), self._stats.nfe)
        if found[2].any():
            finite = np.isfinite(np.broadcast_to(self._ratio, t.shape)[np.argmax(stuck)])
            raise self._failure(Status.STEP_UNDERFLOW if finite else Status.NON_FINITE, stuck)
        self._attempts += 1
        return t1

    def accepted(self, ratio: Array, y: Tensor, dy: Tensor) -> Array:
        """Which of the steps from `y`, where the slope is `dy`, are good enough, by the ratios of their errors.

        If one of the errors is no number, no sample moves: a slope that is NaN would spoil the gradients of all others.

        Raises:
            SolveError: a sample starts from NaN or infinity.
        """
        tried, active, stats = self._tried, self._active, self._stats
        self._ratio = ratio = np.where(active, ratio, 0.0)
        kept: Array = np.zeros_like(active)
        if not np.isfinite(ratio).all():
            finite = torch.isfinite(y + dy).reshape(len(y), -1).all(1).cpu().numpy()
            hopeless = ~finite & ~np.isfinite(ratio)
            if self.pooled(hopeless).any():
                raise self._failure(Status.NON_FINITE, hopeless)
            rejected = ~np.isfinite(ratio)
            proposed = np.where(rejected, tried * self._controller.dfactor, self.step)
        else:
            kept = active & self._limits.accept(np.minimum(self.step, tried), ratio)
            rejected = active & ~kept
            proposed = tried * self._controller.factor(ratio)
        if self._is_joint and self._attempts == 1:
            stats.next_first_step = CAUTION * float(proposed)
        self.step = np.where(kept & (tried < CUT_OFF * self.step), np.maximum(self.step, proposed), proposed)
        self._counts += (kept, rejected)
        stats.num_accepted, stats.num_rejected = self._counts.reshape(2, -1).max(1).tolist()
        stats.step_sizes.extend(np.extract(kept, tried).tolist())
        stats.next_step = float(self.step) if self._is_joint else None
        return kept

    def _failure(self, status: Status, failed: Array) -> SolveError:
        """Of the first of the samples that `failed`; none: one of another process did."""
        sample = int(np.argmax(failed))
        detail = f"sample {sample}: " if failed.any() else ""
        return SolveError(status, float(self._samples.t[sample]), self._stats.nfe, detail)


def _ends_of_steps(t: Array, target: Array, step: Array, longest: float) -> Array:
    """Exactly at the target if a step comes near it, half way to it if two will do; where the step ends, if not."""
    left = np.abs(target - t)
    length = np.minimum(np.minimum(step, longest), left / 2)
    is_near = left <= np.minimum(STRETCH * step, longest * ROUNDING)
    ends: Array = np.where(is_near, target, t + np.copysign(length, target - t))
    return ends


def _taken(run: Run, step: Step, ys: Tensor, y: Tensor, y1: Tensor) -> tuple[Tensor, Tensor | None]:
    """The states after a step from `y` to `y1`, and a mask of those that moved (None: all)."""
    run.keep(ys, step, y, y1)
    if step.accepted is None:
        return y1, None
    moved = as_column(step.accepted, y)
    return torch.where(moved, y1, y), moved
