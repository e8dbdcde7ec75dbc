"""A whole solve by compiled blocks of steps; of one whose steps follow the error, the host reads a few numbers a block.

A solve that fails, or that cannot be compiled after all, is taken once more without anything compiled.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from node_cli.ode.control import CAUTION, CUT_OFF, Controller, Tolerance
from node_cli.ode.graphs.gathering import Gathered
from node_cli.ode.graphs.lowering import NotWhole
from node_cli.ode.graphs.solve_graphs import SolveGraphs, bounds_of
from node_cli.ode.graphs.step_control import Control
from node_cli.ode.integrate import Limits, Record, Run, integrate_on_grid, is_too_short
from node_cli.ode.per_sample import integrate_by_error
from node_cli.ode.progress import OutputTimes, Samples
from node_cli.ode.solution import SolveStats
from node_cli.ode.states import on_device
from node_cli.ode.stepping import Step
from node_cli.ode.tableaus import Array


def integrate_grid_in_blocks(run: Run, times: OutputTimes | Samples, ends: Any, *, is_anchored: bool) -> Tensor:
    """As `integrate_on_grid`, by `run.graphs`, which get the `trace` in place of a record.

    Raises:
        SolveError: as that.
    """
    graphs = run.graphs
    assert graphs is not None
    found, gathered = False, Gathered(run, graphs, times, is_anchored=is_anchored)
    starts = np.concatenate([[times.t], ends[:-1]])
    pairs = np.stack([starts, ends], 1)
    try:
        found = gathered.is_moving and _stepped(run, graphs, gathered, pairs)
    except NotWhole as error:
        graphs.refuse(error)
    if not found:
        gathered = Gathered(run, graphs, times, is_anchored=is_anchored)
        run, kept = _plain(run)
        ys = integrate_on_grid(run, times, ends, is_anchored=is_anchored)
        graphs.trace = gathered.trace_of(kept, ys)
        return ys
    lengths = np.abs(np.diff(pairs, axis=1))
    run.stats.nfe = _num_evaluations(graphs, len(pairs), len(pairs))
    run.stats.num_accepted = len(pairs)
    run.stats.step_sizes += lengths[lengths > 0].tolist() if isinstance(times, Samples) else lengths.ravel().tolist()
    ys, graphs.trace = gathered.finished()
    return ys


def _stepped(run: Run, graphs: SolveGraphs, gathered: Gathered, pairs: Array) -> bool:
    """Whether all steps are made, and all states finite."""
    if run.max_nfe is not None and _num_evaluations(graphs, len(pairs), len(pairs)) > run.max_nfe:
        return False
    y, blocks = run.y0, gathered.blocks
    size = min(len(pairs), blocks.most)
    slope: list[Tensor] = []
    times = [gathered.times] if blocks.plan.has_weights else []
    padding = np.repeat(pairs[-1:, 1:], 2, 1).repeat(-len(pairs) % size, 0)
    ends = on_device(np.concatenate([pairs, padding]), y.device)
    for first in range(0, len(pairs), size):
        own, meanwhile = pairs[first : first + size], gathered.backwards(size, is_first=not first)
        block = blocks.steps(size, is_first=not first, keeps=gathered.keeps, meanwhile=meanwhile)
        y1, new_slope, *more = block([ends[first : first + size], *times, y, *slope, *graphs.inputs])
        gathered.add(size, more, y1, [(n, t0, t1, True) for n, (t0, t1) in enumerate(own)])
        y, slope = y1, [new_slope]
    return bool(y.isfinite().all())


def integrate_in_blocks(
    run: Run,
    times: OutputTimes | Samples,
    tolerance: Tolerance,
    controller: Controller,
    limits: Limits,
    first_step: float | None,
    *,
    is_joint: bool,
) -> Tensor:
    """As `integrate_adaptively` or `integrate_by_sample`, by `run.graphs`, which get the `trace` in place of a record.

    The first solve tells how many attempts to compile together, and is taken without anything compiled.

    Raises:
        SolveError: as that.
    """
    graphs = run.graphs
    assert graphs is not None
    bounds, gathered = bounds_of(tolerance, run.y0), Gathered(run, graphs, times, is_anchored=False)
    shapes = tuple(bound.shape for bound in bounds)
    control = _control(tolerance.norm, shapes, controller, limits.max_step, is_joint, times.stepping_onto)
    blocks, found = gathered.blocks, None
    key = (control.key, first_step is None)
    if key in blocks.expected and gathered.is_moving:
        try:
            size = min(blocks.expected[key], blocks.most)
            found = _attempted(run, graphs, gathered, control, bounds, limits, first_step, size)
        except NotWhole as error:
            graphs.refuse(error)
    if found is None:
        gathered = Gathered(run, graphs, times, is_anchored=False)
        run, kept = _plain(run)
        ys = integrate_by_error(run, times, tolerance, replace(controller), limits, first_step, is_joint=is_joint)
        blocks.expected[key] = max(1, run.stats.num_accepted + run.stats.num_rejected)
        graphs.trace = gathered.trace_of(kept, ys)
        return ys
    blocks.expected[key] = len(found)
    num_accepted = len(gathered.states) - 1
    run.stats.nfe = _num_evaluations(graphs, len(found), num_accepted)
    if isinstance(times, Samples):
        _note_samples(run.stats, found, is_joint=is_joint)
    else:
        _note(run.stats, found)
    ys, graphs.trace = gathered.finished()
    return ys


_control = lru_cache(maxsize=64)(Control)  # whose key takes long to make, beside a small solve


def _plain(run: Run) -> tuple[Run, list[tuple[Step, Tensor]]]:
    """The same without anything compiled, and where its steps are kept."""
    kept: list[tuple[Step, Tensor]] = []
    record: Record = lambda step, y: kept.append((step, y))  # noqa: E731
    return replace(run, record=record), kept


class _Attempt(NamedTuple):
    """By the log of a block: numbers, or arrays `(batch,)`."""

    t0: Any
    t1: Any
    step: Any  # that was meant
    factor: Any  # of the next one
    is_kept: Any
    is_refused: Any


def _attempted(
    run: Run,
    graphs: SolveGraphs,
    gathered: Gathered,
    control: Control,
    bounds: tuple[Tensor, ...],
    limits: Limits,
    first_step: float | None,
    size: int,
) -> list[_Attempt] | None:
    """The attempts of the solve, the first `size` of them in one block; None: it fails."""
    y, blocks, attempts, by_sample = run.y0, gathered.blocks, list[_Attempt](), gathered.by_sample
    ts: Any = gathered.ts.T if by_sample else run.ts
    start, target = ts[0], ts[-1]
    has_times = control.stepping_onto or blocks.plan.has_weights
    ends = gathered.times if has_times else on_device(np.array(target), y.device)
    one: Any = np.ones_like(start) if by_sample else 1.0
    numbers = [start, (first_step or 0.0) * one, one, one, one]
    clock = on_device(np.array(numbers), y.device)
    some, every = (np.any, np.all) if by_sample else (bool, bool)
    kind, slope = "given" if first_step else "chosen", list[Tensor]()
    while True:
        meanwhile, kept = gathered.backwards(size, is_first=kind != "none"), []
        block = blocks.attempts(control, size, kind, keeps=gathered.keeps, meanwhile=meanwhile)
        y1, new_slope, clock, log, *more = block([clock, ends, y, *slope, *bounds, *graphs.inputs])
        # Reading the log is the one wait for the device.
        for n, (t0, t1, step, ratio, factor) in enumerate(log.cpu().numpy() if by_sample else log.tolist()):
            is_active = t0 != target
            if not some(is_active):
                break
            if len(attempts) >= limits.max_steps or some(is_too_short(t0, t1, target, step, limits)):
                return None
            is_kept, is_refused = is_active & (ratio <= 1), is_active & (ratio > 1) & (ratio < math.inf)
            if not every(is_kept | is_refused | (t0 == target)):  # an error that is no number
                return None
            attempts.append(_Attempt(t0, t1, step, factor, is_kept, is_refused))
            if some(is_kept):
                kept.append((n, t0, t1, is_kept))
        gathered.add(size, more, y1, kept)
        nfe = _num_evaluations(graphs, len(attempts), len(gathered.states) - 1)
        if run.max_nfe is not None and nfe > run.max_nfe:
            return None
        last = attempts[-1]
        if every((last.t0 == target) | (last.is_kept & (last.t1 == target))):
            return attempts
        y, slope, size, kind = y1, [new_slope], blocks.most, "none"


def _num_evaluations(graphs: SolveGraphs, num_attempts: int, num_accepted: int) -> int:
    """Of a solve: the slope of each state that a step was tried from, and the later stages."""
    tableau = graphs.tableau
    return num_attempts * (tableau.num_stages - 1) + (1 if tableau.is_fsal else num_accepted)


def _note(stats: SolveStats, attempts: list[_Attempt]) -> None:
    for attempt in attempts:
        tried = abs(attempt.t1 - attempt.t0)
        proposed = tried * attempt.factor
        if attempt is attempts[0]:
            stats.next_first_step = CAUTION * proposed
        stats.next_step = proposed
        if not attempt.is_kept:
            stats.num_rejected += 1
            continue
        stats.num_accepted += 1
        stats.step_sizes.append(tried)
        if tried < CUT_OFF * attempt.step:
            stats.next_step = max(attempt.step, proposed)


def _note_samples(stats: SolveStats, attempts: list[_Attempt], *, is_joint: bool) -> None:
    """The same of own times; see `integrate_by_sample`."""
    if is_joint:
        longest = [(attempt, np.abs(attempt.t1 - attempt.t0).argmax()) for attempt in attempts]
        return _note(stats, [_Attempt(*(number[n].item() for number in attempt)) for attempt, n in longest])
    for attempt in attempts:
        stats.step_sizes += np.abs(attempt.t1 - attempt.t0)[attempt.is_kept].tolist()
    stats.num_accepted = int(sum(attempt.is_kept for attempt in attempts).max())
    stats.num_rejected = int(sum(attempt.is_refused for attempt in attempts).max())
    return None
