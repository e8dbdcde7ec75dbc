"""The step loops: in steps of a grid, or, for a whole batch, in steps that the error of all samples together chooses.

No loop knows a gradient: it calls `record` with every accepted step, and all evaluations go through the vector field
that it was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.control import CAUTION, CUT_OFF, ROUNDING, STRETCH, Controller, Tolerance
from node_cli.ode.graphs.solve_graphs import SolveGraphs
from node_cli.ode.progress import OutputTimes, Samples
from node_cli.ode.solution import SolveError, SolveStats, Status
from node_cli.ode.states import as_column
from node_cli.ode.stepping import Step, Stepper
from node_cli.ode.tableaus import Array
from node_cli.ode.vector_field import all_finite

Record = Callable[[Step, Tensor], None]  # an accepted step, and the state that it started from

SHORTEST = 10  # units in the last place of t; shorter steps are rounded to others, and end nowhere


@dataclass(eq=False)
class Run:
    """One solve as a step loop sees it: from where it starts, what takes its steps, and where they are noted.

    `ts` are the times of all samples, or an array `(batch, times)` of each sample's own, which rise or fall up to the
    last one; that may be repeated. `graphs`, if there are any, take whole blocks of the same steps.
    """

    new_stepper: Callable[[], Stepper]
    y0: Tensor
    ts: list[float] | Array
    stats: SolveStats
    record: Record
    max_nfe: int | None = None
    graphs: SolveGraphs | None = None

    @cached_property
    def stepper(self) -> Stepper:
        """What takes the steps, unless it is graphs."""
        return self.new_stepper()

    def states(self) -> Tensor:
        """Where the states at all `ts` are to be put; all are `y0` as yet."""
        return self.y0.expand(np.shape(self.ts)[-1], *self.y0.shape).clone()

    def take(self, ys: Tensor, step: Step, y: Tensor, y1: Tensor) -> tuple[Tensor, Tensor | None]:
        """The states after an accepted step from `y` to `y1`, and a mask of those that moved (None: all)."""
        self.stepper.keep(ys, step, y, y1)
        self.record(step, y)
        if step.accepted is None:
            return y1, None
        moved = as_column(step.accepted, y)
        return torch.where(moved, y1, y), moved


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


def integrate_on_grid(run: Run, times: OutputTimes | Samples, ends: Iterable[Any], *, is_anchored: bool) -> Tensor:
    """States at the output times, in steps with these `ends`, of all samples together or of each `(batch,)`.

    They lie at shares of the interval between two times that steps end at, or, if `is_anchored`, at distances from its
    start.

    Raises:
        SolveError: a state is not finite any more, which is looked for once, at the end.
    """
    stepper, stats, y, ys, moved = run.stepper, run.stats, run.y0, run.states(), None
    has_own = isinstance(times, Samples)
    norms: list[tuple[Any, Tensor]] = []
    stepper.start(times.t, y)
    for t1 in ends:
        if norms:
            stepper.next(times.t, y, moved)
        length, y1 = abs(t1 - times.t), stepper.step(times.t, t1, y)
        stats.num_accepted += 1
        stats.step_sizes.extend(length[length > 0].tolist() if has_own else [length])
        y, moved = run.take(ys, times.step(t1, is_anchored=is_anchored), y, y1)
        norms.append((t1, torch.linalg.vector_norm(y.reshape(len(y) if has_own else 1, -1), math.inf, 1)))
    failed = torch.stack([norm for _, norm in norms]).isfinite().logical_not().nonzero().tolist() if norms else []
    for n, sample in failed[:1]:
        name = f"sample {sample}: " if has_own else ""
        raise SolveError(Status.NON_FINITE, float(np.ravel(norms[n][0])[sample]), stats.nfe, name)
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
    stepper, stats, y, ys, ratio = run.stepper, run.stats, run.y0, run.states(), 0.0
    stepper.start(times.t, y)
    step = first_step or float(stepper.first_step(tolerance, y, abs(times.ts[-1] - times.t)))
    while not times.done:
        t, target = times.t, times.ts[times.segment[1]]
        if limits.accepts_min_step:
            step = max(step, limits.min_step)
        t1 = _end_of_step(t, target, step, limits.max_step)
        if stats.num_accepted + stats.num_rejected >= limits.max_steps:
            raise SolveError(Status.TOO_MANY_STEPS, t, stats.nfe)
        if is_too_short(t, t1, target, step, limits):
            raise SolveError(Status.STEP_UNDERFLOW if math.isfinite(ratio) else Status.NON_FINITE, t, stats.nfe)
        y1, measured = stepper.attempt(t, t1, y, tolerance)
        ratio = float(measured)  # the one wait for the device
        tried = abs(t1 - t)
        proposed = tried * float(controller.factor(ratio))
        if stats.num_accepted + stats.num_rejected == 0:
            stats.next_first_step = CAUTION * proposed
        if not limits.accept(min(step, tried), ratio):
            if not math.isfinite(ratio) and tolerance.largest(not all_finite((y, stepper.stages[0]))):
                raise SolveError(Status.NON_FINITE, t, stats.nfe)
            stats.num_rejected += 1
            step = proposed
            continue
        step = max(step, proposed) if tried < CUT_OFF * step else proposed
        y, _ = run.take(ys, times.step(t1), y, y1)
        stats.num_accepted += 1
        stats.step_sizes.append(tried)
        if not times.done:
            stepper.next(t1, y)
    stats.next_step = step
    return ys


def is_too_short(t: Any, t1: Any, target: Any, step: Any, limits: Limits) -> Any:
    """Whether a step of this size, from t to t1, leads nowhere; of each sample, where there are arrays of them."""
    if isinstance(t, float):
        shortest: Any = max(limits.min_step, SHORTEST * math.ulp(t))
    else:
        shortest = np.maximum(limits.min_step, SHORTEST * np.spacing(np.abs(t)))
    return (t1 != target) & ((t1 == t) | (step < shortest))


def _end_of_step(t: float, target: float, step: float, longest: float) -> float:
    """Where a step of this size ends: exactly at the target if it comes near, half way to it if two will do."""
    left = abs(target - t)
    if left <= min(STRETCH * step, longest * ROUNDING):
        return target
    return t + math.copysign(min(step, longest, left / 2), target - t)
