"""The step loops for a whole batch: in steps of a grid, or in steps that the error of all samples together chooses.

No loop knows a gradient: it calls `record` with every accepted step, and all evaluations go through the vector field
that it was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.control import Controller, Tolerance, choose_first_step
from node_cli.ode.solution import SolveError, SolveStats, Status
from node_cli.ode.stepping import Outputs, Step, Stepper
from node_cli.ode.tableaus import Array

Record = Callable[[Step, Tensor], None]  # an accepted step, and the state that it started from

SHORTEST = 10  # units in the last place of t; shorter steps are rounded to others, and end nowhere
STRETCH = 1.05  # a step that ends so little before its target is stretched to it
ROUNDING = 1 + 1e-12  # of a longest step by the rounding of times
CUT_OFF = 0.999  # a step that its target made shorter than this says nothing against the length that was meant
CAUTION = 0.6  # of the first step that an error would have allowed: what goes wrong there has all the way to grow


@dataclass(frozen=True, eq=False)
class Run:
    """One solve as a step loop sees it: from where it starts, what takes its steps, and where they are noted.

    `ts` are the times of all samples, or an array `(batch, times)` of each sample's own, which rise or fall up to the
    last one; that may be repeated.
    """

    stepper: Stepper
    y0: Tensor
    ts: list[float] | Array
    stats: SolveStats
    record: Record

    def states(self) -> Tensor:
        """Where the states at all `ts` are to be put; all are `y0` as yet."""
        count = len(self.ts) if isinstance(self.ts, list) else self.ts.shape[1]
        return self.y0.expand(count, *self.y0.shape).clone()

    def keep(self, ys: Tensor, step: Step, y0: Tensor, y1: Tensor) -> None:
        """Notes an accepted step from `y0` to `y1`."""
        self.stepper.keep(ys, step, y0, y1)
        self.record(step, y0)


@dataclass(frozen=True)
class Limits:
    """Bounds of the steps; `max_steps` bounds the attempts. A step of `min_step` is good enough if it is accepted."""

    min_step: float
    max_step: float
    max_steps: float
    accepts_min_step: bool = False

    def accept(self, tried: float | Array, ratio: float | Array) -> Any:
        """Whether a step of this length and error is kept; of each sample, where there are arrays of them."""
        if not self.accepts_min_step:
            return ratio <= 1
        return (ratio <= 1) | ((tried <= self.min_step) & np.isfinite(ratio))


@dataclass
class OutputTimes:
    """The times `ts` at which the state is asked for, and how far a solve has come through them.

    With `stepping_onto` every output time ends a step, else only the last one does.
    """

    ts: list[float]
    stepping_onto: bool
    next: int = 1

    @property
    def sign(self) -> float:
        """1 forwards in time, -1 backwards."""
        return math.copysign(1.0, self.ts[-1] - self.ts[0])

    @property
    def done(self) -> bool:
        """Whether every output has been reached."""
        return self.next == len(self.ts)

    @property
    def segment(self) -> tuple[int, int]:
        """Positions of the output times between which the steps are free."""
        return (self.next - 1, self.next) if self.stepping_onto else (0, len(self.ts) - 1)

    def step(self, t0: float, t1: float, *, is_anchored: bool = False) -> Step:
        """The step from `t0` to `t1`; the next outputs that lie in it count as reached from now on."""
        segment, first = self.segment, self.next
        target = segment[1]
        while self.next <= target and self.sign * (self.ts[self.next] - t1) <= 0:
            self.next += 1
        hits_target = self.next > target
        index = range(first, self.next - hits_target)
        theta = [(self.ts[i] - t0) / (t1 - t0) if t1 != t0 else 0.0 for i in index]
        return Step(t0, t1, Outputs([target] if hits_target else ()), Outputs(index, theta), segment, is_anchored)


def integrate_on_grid(run: Run, times: OutputTimes, ends: Sequence[float], *, is_anchored: bool) -> Tensor:
    """States at the output times, in steps with these `ends`.

    They lie at shares of the interval between two times that steps end at, or, if `is_anchored`, at distances from its
    start.

    Raises:
        SolveError: the state is not finite any more, which is looked for once, at the end.
    """
    stepper, stats, t, y, ys = run.stepper, run.stats, times.ts[0], run.y0, run.states()
    sizes: list[Tensor] = []
    stepper.start(t, y)
    for t1 in ends:
        if sizes:
            stepper.next(t, y)
        y1 = stepper.step(t, t1, y)
        run.keep(ys, times.step(t, t1, is_anchored=is_anchored), y, y1)
        stats.num_accepted += 1
        stats.step_sizes.append(abs(t1 - t))
        sizes.append(torch.linalg.vector_norm(y1, math.inf))
        t, y = t1, y1
    finite = torch.isfinite(torch.stack(sizes)).tolist()
    if not all(finite):
        raise SolveError(Status.NON_FINITE, ends[finite.index(False)], stats.nfe)
    return ys


def integrate_adaptively(
    run: Run,
    times: OutputTimes,
    tolerance: Tolerance,
    controller: Controller,
    limits: Limits,
    first_step: float | None,
) -> Tensor:
    """States at the output times; `first_step` is tried first, None: chosen.

    Raises:
        SolveError: a bound was reached, the step size underflowed, or the state is not finite.
    """
    stepper, stats, t, y, ys, ratio = run.stepper, run.stats, times.ts[0], run.y0, run.states(), 0.0
    stepper.start(t, y)
    step = first_step or float(choose_first_step(tolerance, stepper, t, y, times.ts[-1] - t))
    while True:
        segment = times.segment
        if limits.accepts_min_step:
            step = max(step, limits.min_step)
        t1 = _end_of_step(t, times.ts[segment[1]], step, limits.max_step)
        if stats.num_accepted + stats.num_rejected >= limits.max_steps:
            raise SolveError(Status.TOO_MANY_STEPS, t, stats.nfe)
        if t1 != times.ts[segment[1]] and (t1 == t or step < max(limits.min_step, SHORTEST * math.ulp(t))):
            raise SolveError(Status.STEP_UNDERFLOW if math.isfinite(ratio) else Status.NON_FINITE, t, stats.nfe)
        y1 = stepper.step(t, t1, y)
        ratio = float(tolerance.ratio(stepper.error(t, t1), y, y1))  # the one wait for the device
        tried = abs(t1 - t)
        proposed = tried * float(controller.factor(ratio))
        if stats.num_accepted + stats.num_rejected == 0:
            stats.next_first_step = CAUTION * proposed
        if not limits.accept(min(step, tried), ratio):
            if not (math.isfinite(ratio) or tolerance.all_finite((y, stepper.stages[0]))):
                raise SolveError(Status.NON_FINITE, t, stats.nfe)
            stats.num_rejected += 1
            step = proposed
            continue
        step = max(step, proposed) if tried < CUT_OFF * step else proposed
        run.keep(ys, times.step(t, t1), y, y1)
        stats.num_accepted += 1
        stats.step_sizes.append(tried)
        t, y = t1, y1
        if times.done:
            stats.next_step = step
            return ys
        stepper.next(t, y)


def _end_of_step(t: float, target: float, step: float, longest: float) -> float:
    """Where a step of this size ends: exactly at the target if it comes near, half way to it if two will do."""
    left = abs(target - t)
    if left <= min(STRETCH * step, longest * ROUNDING):
        return target
    return t + math.copysign(min(step, longest, left / 2), target - t)
