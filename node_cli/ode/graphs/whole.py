"""A whole solve by compiled blocks of steps; of one whose steps follow the error, the host reads a few numbers a block.

A solve that fails, or that cannot be compiled after all, is taken once more without anything compiled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from node_cli.ode.control import CAUTION, CUT_OFF, Controller, Tolerance
from node_cli.ode.graphs.blocks import Blocks, Control
from node_cli.ode.graphs.lowering import NotWhole
from node_cli.ode.graphs.solve_graphs import SolveGraphs, Trace, as_exact_tensor, bounds_of
from node_cli.ode.integrate import Limits, Record, Run, integrate_adaptively, integrate_on_grid, is_too_short
from node_cli.ode.progress import OutputTimes
from node_cli.ode.solution import SolveStats


def integrate_grid_in_blocks(run: Run, times: OutputTimes, ends: list[float], *, is_anchored: bool) -> Tensor:
    """As `integrate_on_grid`, by `run.graphs`, which get the `trace` in place of a record.

    Raises:
        SolveError: as that.
    """
    graphs = run.graphs
    assert graphs is not None
    blocks, found = graphs.blocks(interpolates=not times.stepping_onto), None
    pairs = list(zip([times.t, *ends], ends, strict=False))
    try:
        found = _stepped(run, graphs, blocks, times.ts, pairs)
    except NotWhole as error:
        graphs.refuse(error)
    if found is None:
        run, kept = _plain(run)
        ys = integrate_on_grid(run, times, ends, is_anchored=is_anchored)
        states = [*(y for _, _, y in kept), ys[-1].clone()]
    else:
        ys, states = found
        tableau = graphs.tableau
        run.stats.nfe = _num_evaluations(tableau.num_stages, tableau.is_fsal, len(pairs), len(pairs))
        run.stats.num_accepted = len(pairs)
        run.stats.step_sizes += [abs(t1 - t0) for t0, t1 in pairs]
    graphs.trace = Trace(blocks, times.ts, pairs, states, times.stepping_onto, is_anchored)
    return ys


def _stepped(
    run: Run, graphs: SolveGraphs, blocks: Blocks, times: list[float], pairs: list[tuple[float, float]]
) -> tuple[Tensor, list[Tensor]] | None:
    """Outputs and states; None: it fails."""
    tableau, most = graphs.tableau, run.max_nfe
    if most is not None and _num_evaluations(tableau.num_stages, tableau.is_fsal, len(pairs), len(pairs)) > most:
        return None
    y, ts, states = run.y0, as_exact_tensor(tuple(times), run.y0.device), [run.y0]
    size = min(len(pairs), blocks.most)
    more: tuple[Tensor, ...] = ()
    for first in range(0, len(pairs), size):
        own = pairs[first : first + size]
        flat = [t for pair in [*own, *[(own[-1][1],) * 2] * (size - len(own))] for t in pair]
        ends = as_exact_tensor(tuple(flat), y.device).view(size, 2)
        ys, y, slope, *between = blocks.steps(size, is_first=not first)([ends, ts, y, *more, *graphs.inputs])
        states += [*between, y][: len(own)]
        more = (slope, ys)
    return (ys, states) if bool(y.isfinite().all()) else None


def integrate_in_blocks(
    run: Run,
    times: OutputTimes,
    tolerance: Tolerance,
    controller: Controller,
    limits: Limits,
    first_step: float | None,
) -> Tensor:
    """As `integrate_adaptively`, by `run.graphs`, which get the `trace` in place of a record.

    The first solve tells how many attempts to compile together, and is taken without anything compiled.

    Raises:
        SolveError: as that.
    """
    graphs = run.graphs
    assert graphs is not None
    bounds = bounds_of(tolerance, run.y0)
    control = Control(tolerance.norm, tuple(bound.shape for bound in bounds), controller, limits.max_step)
    blocks, found = graphs.blocks(interpolates=True), None
    key = control.key, first_step is None
    if key in blocks.expected and times.t != times.ts[-1]:
        try:
            found = _attempted(run, graphs, blocks, control, bounds, limits, first_step)
        except NotWhole as error:
            graphs.refuse(error)
    if found is None:
        run, kept = _plain(run)
        ys = integrate_adaptively(run, times, tolerance, replace(controller), limits, first_step)
        count, ends = run.stats.num_accepted + run.stats.num_rejected, [(t0, t1) for t0, t1, _ in kept]
        states = [*(y for _, _, y in kept), ys[-1].clone()]
    else:
        accepted = [attempt for attempt in found.attempts if attempt.is_accepted]
        count, ends = len(found.attempts), [(attempt.t0, attempt.t1) for attempt in accepted]
        ys, states = found.ys, [*(attempt.y for attempt in accepted), found.end]
        _note(run.stats, found)
    blocks.expected[key] = count
    graphs.trace = Trace(blocks, times.ts, ends, states, stepping_onto=False, is_anchored=False)
    return ys


def _plain(run: Run) -> tuple[Run, list[tuple[Any, Any, Tensor]]]:
    """The same without anything compiled, and where its steps are kept."""
    kept: list[tuple[Any, Any, Tensor]] = []
    record: Record = lambda step, y: kept.append((step.t0, step.t1, y))  # noqa: E731
    return replace(run, record=record), kept


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
    graphs: SolveGraphs,
    blocks: Blocks,
    control: Control,
    bounds: tuple[Tensor, ...],
    limits: Limits,
    first_step: float | None,
) -> _Found | None:
    """The solve; None: it fails."""
    assert isinstance(run.ts, list)
    y, target, attempts = run.y0, run.ts[-1], list[_Attempt]()
    clock = as_exact_tensor((run.ts[0], first_step or 0.0, 1.0, 1.0, 1.0), y.device)
    ts = as_exact_tensor(tuple(run.ts), y.device)
    size, start = (
        min(blocks.expected[control.key, first_step is None], blocks.most),
        "given" if first_step else "chosen",
    )
    more: tuple[Tensor, ...] = ()
    while True:
        block = blocks.attempts(control, size, start)
        ys, y1, slope, clock, log, *states = block([clock, ts, y, *more, *bounds, *graphs.inputs])
        for row, state in zip(log.tolist(), (y, *states), strict=True):  # the one wait for the device
            t0, t1, step, ratio, factor = row
            if t0 == target:
                break
            if len(attempts) >= limits.max_steps or is_too_short(t0, t1, target, step, limits):
                return None
            if not math.isfinite(ratio):
                return None
            attempts.append(_Attempt(t0, t1, step, ratio, factor, state))
        num_accepted = sum(attempt.is_accepted for attempt in attempts)
        nfe = _num_evaluations(graphs.tableau.num_stages, graphs.tableau.is_fsal, len(attempts), num_accepted)
        if run.max_nfe is not None and nfe > run.max_nfe:
            return None
        if attempts[-1].is_accepted and attempts[-1].t1 == target:
            return _Found(attempts, nfe, ys, y1)
        y, more, size, start = y1, (slope, ys), blocks.most, "none"


def _num_evaluations(num_stages: int, is_fsal: bool, num_attempts: int, num_accepted: int) -> int:
    """Of a solve: the slope of each state that a step was tried from, and the later stages."""
    return num_attempts * (num_stages - 1) + (1 if is_fsal else num_accepted)


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
