"""A whole adaptive solve by blocks of attempts, of which the host reads a few numbers each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from node_cli.ode.control import CAUTION, CUT_OFF, Controller, Tolerance
from node_cli.ode.graphs.blocks import Blocks
from node_cli.ode.graphs.lowering import NotWhole
from node_cli.ode.graphs.stepper import GraphStepper, Trace, bounds_of
from node_cli.ode.integrate import Limits, Record, Run, integrate_adaptively, is_too_short
from node_cli.ode.progress import OutputTimes
from node_cli.ode.solution import SolveStats

MOST = 2  # attempts, or steps backwards, in a block: longer ones save little, and take long to compile
MOST_TIMES = 128  # each attempt goes through all output times; with many, steps one by one are faster


def takes_whole(run: Run, limits: Limits) -> bool:
    """Whether `integrate_in_blocks` takes this solve."""
    ts, stepper = run.ts, run.stepper
    if not isinstance(stepper, GraphStepper) or not stepper.graphs.keeps_states:
        return False
    assert isinstance(ts, list)
    rises = all(a < b for a, b in zip(ts, ts[1:], strict=False))
    falls = not rises and all(a > b for a, b in zip(ts, ts[1:], strict=False))
    return len(ts) <= MOST_TIMES and (rises or falls) and not (limits.accepts_min_step and limits.min_step)


def integrate_in_blocks(
    run: Run,
    times: OutputTimes,
    tolerance: Tolerance,
    controller: Controller,
    limits: Limits,
    first_step: float | None,
) -> Tensor:
    """As `integrate_adaptively`, by the graphs of `run.stepper`, which get its `trace` in place of a record.

    The first solve tells how many attempts to compile together, and is taken plainly; so is one that fails, once more,
    and one that cannot be compiled.
    """
    stepper = run.stepper
    assert isinstance(stepper, GraphStepper)
    bounds = bounds_of(tolerance, run.y0)
    shapes = tuple(bound.shape for bound in bounds)
    blocks = stepper.graphs.blocks(tolerance.norm, shapes, controller, limits.max_step)
    found = None
    if blocks.expected is not None:
        try:
            found = _attempted(run, blocks, stepper, bounds, limits, first_step)
        except NotWhole as error:
            stepper.graphs.refuse(error)
    if found is None:
        steps: list[tuple[Any, Any, Tensor]] = []
        record: Record = lambda step, y: steps.append((step.t0, step.t1, y))  # noqa: E731
        run = replace(run, stepper=stepper.plain(run.y0), record=record)
        ys = integrate_adaptively(run, times, tolerance, controller, limits, first_step)
        blocks.expected = run.stats.num_accepted + run.stats.num_rejected
        end = ys[-1].clone()
    else:
        steps = [(attempt.t0, attempt.t1, attempt.y) for attempt in found.attempts if attempt.is_accepted]
        blocks.expected = len(found.attempts)
        _note(run.stats, found)
        ys, end = found.ys, found.end
    assert isinstance(run.ts, list)
    ends, states = [(t0, t1) for t0, t1, _ in steps], [y for _, _, y in steps]
    stepper.graphs.trace = Trace(blocks, run.ts, ends, [*states, end])
    return ys


@lru_cache(maxsize=32)
def as_exact_tensor(times: tuple[float, ...], device: torch.device) -> Tensor:
    """Times on the device, which are mostly those of the last solve."""
    return torch.tensor(times, dtype=torch.float64, device=device)


class _Attempt(NamedTuple):
    t0: float
    t1: float
    step: float
    ratio: float
    factor: float
    y: Tensor  # from where

    @property
    def is_accepted(self) -> bool:
        return self.ratio <= 1


@dataclass(frozen=True)
class _Found:
    attempts: list[_Attempt]
    nfe: int
    ys: Tensor
    end: Tensor


def _attempted(
    run: Run,
    blocks: Blocks,
    stepper: GraphStepper,
    bounds: tuple[Tensor, ...],
    limits: Limits,
    first_step: float | None,
) -> _Found | None:
    """The solve; None: it fails."""
    assert isinstance(run.ts, list)
    assert blocks.expected is not None
    y, target, inputs = run.y0, run.ts[-1], stepper.graphs.inputs
    clock = as_exact_tensor((run.ts[0], first_step or 0.0, 1.0, 1.0, 1.0), y.device)
    ts = as_exact_tensor(tuple(run.ts), y.device)
    attempts: list[_Attempt] = []
    size, start = min(blocks.expected, MOST), "given" if first_step else "chosen"
    more: tuple[Tensor, ...] = ()
    while True:
        block = blocks.forward(size, start)
        ys, y1, slope, clock, log, *states = block([clock, ts, y, *more, *bounds, *inputs])
        for row, state in zip(log.tolist(), (y, *states), strict=True):  # the one wait for the device
            t0, t1, step, ratio, factor = row
            attempt = _Attempt(t0, t1, step, ratio, factor, state)
            if attempt.t0 == target:
                break
            if len(attempts) >= limits.max_steps or is_too_short(attempt.t0, attempt.t1, target, attempt.step, limits):
                return None
            if not math.isfinite(attempt.ratio):
                return None
            attempts.append(attempt)
        if attempts[-1].is_accepted and attempts[-1].t1 == target:
            break
        y, more, start = y1, (slope, ys), "none"
        size = min(MOST, max(1, blocks.expected - len(attempts)))
    tableau, most = stepper.tableau, stepper.counted.max_nfe
    nfe = 1 + len(attempts) * (tableau.num_stages - 1)
    if not tableau.is_fsal:
        nfe += sum(attempt.is_accepted for attempt in attempts) - 1
    return None if most is not None and nfe > most else _Found(attempts, nfe, ys, y1)


def _note(stats: SolveStats, found: _Found) -> None:
    stats.nfe = found.nfe
    for attempt in found.attempts:
        tried = abs(attempt.t1 - attempt.t0)
        proposed = tried * attempt.factor
        if attempt is found.attempts[0]:
            stats.next_first_step = CAUTION * proposed
        stats.next_step = proposed
        if not attempt.is_accepted:
            stats.num_rejected += 1
            continue
        stats.num_accepted += 1
        stats.step_sizes.append(tried)
        if tried < CUT_OFF * attempt.step:
            stats.next_step = max(attempt.step, proposed)
