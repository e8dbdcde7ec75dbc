"""Blocks of steps; `blocks.py` says what they take and return."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.control import Tolerance, choose_first_step, end_of_step
from node_cli.ode.graphs.block_plan import BlockPlan
from node_cli.ode.graphs.copying import Repeated
from node_cli.ode.graphs.examples import Source
from node_cli.ode.graphs.step_control import Control, decided, next_time
from node_cli.ode.states import as_column

CLOCK = 5  # numbers that go from block to block: the time, the step to try, and the memory of the controller


def attempts(plan: BlockPlan, control: Control, num_attempts: int, start: str, *, keeps: bool) -> Source:
    """See `Blocks.attempts`."""
    tableau, is_first, order = plan.tableau, start != "none", plan.tableau.error_order
    has_times = control.stepping_onto or plan.has_weights
    assert order is not None

    def block(clock: Tensor, ends: Tensor, y: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        slope, more = (y, more) if is_first else (more[0], more[1:])
        (rtol, atol), inputs = more[:2], more[2:]
        (take_step, slope_at), tolerance = plan.field(inputs, keeps=keeps), Tolerance(rtol, atol, control.norm)
        t, *numbers = clock.unbind()
        end = ends[-1] if has_times else ends
        step, *memory = (number.amax() if control.is_joint else number for number in numbers)
        if is_first:
            slope = slope_at(t, y)
        if start == "chosen":
            span = (end - t).abs()
            step = choose_first_step(tolerance, order, y, slope, span.amax() if control.is_joint else span).double()

        @Repeated
        def attempt(t: Tensor, y: Tensor, slope: Tensor, step: Tensor, *memory: Tensor) -> list[Tensor]:
            target = next_time(ends, t) if control.stepping_onto else end
            t1 = end_of_step(torch, t, target, step, control.max_step)
            y1, stages, new = take_step(t, t1, y, slope)
            ratio = tolerance.ratio(plan.error(as_column(t1 - t, y), stages), y, y1).double()
            factor, step_after, after, is_kept = decided(control.controller, t, t1, end, step, list(memory), ratio)
            noted = torch.stack([each.expand_as(t) for each in (t, t1, step, ratio, factor)])
            own = [plan.weights(ends, t, t1, is_kept).to(y.dtype)] if plan.has_weights else []
            y, slope = (torch.where(as_column(is_kept, y), *pair) for pair in ((y1, y), (stages[-1], slope)))
            t = torch.where(is_kept, t1, t)
            if not tableau.is_fsal:
                slope = slope_at(t, y)
            return [t, y, slope, step_after, *after, noted, *own, *stages, *new]

        log, states, rows, weights, kept = [], [], [], list[Tensor](), list[Tensor]()
        for _ in range(num_attempts):
            states.append(y)
            found = iter(attempt(t, y, slope, step, *memory))
            t, next_y, slope, step, *memory = islice(found, CLOCK + 2)
            log.append(next(found))
            weights += islice(found, int(plan.has_weights))
            rows.append([y, *islice(found, tableau.num_stages)])
            kept += found
            y = next_y
        clock = torch.stack([each.expand_as(t) for each in (t, step, *memory)])
        left = plan.left_behind(rows, weights, y, t == end)
        results = (y, slope, clock, torch.stack(log), *states[1:], *left, *kept)
        return tuple(result.contiguous() for result in results)

    def examples() -> list[Any]:
        like = plan.examples
        ends = like.times() if has_times else like.exact()
        bounds = [like.like_y(shape) for shape in control.tolerance_shapes]
        return [like.exact(CLOCK), ends, like.y(), *([] if is_first else [like.y()]), *bounds]

    block.__name__ = f"{num_attempts} attempts"
    return block, examples


def steps(plan: BlockPlan, num_steps: int, *, is_first: bool, keeps: bool) -> Source:
    """See `Blocks.steps`."""

    def block(ends: Tensor, y: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        ts = y
        if plan.has_weights:
            ts, y, more = y, more[0], more[1:]
        slope, inputs = (y, more) if is_first else (more[0], more[1:])
        take_step, slope_at = plan.field(inputs, keeps=keeps)
        if is_first:
            slope = slope_at(ends[0, 0], y)

        @Repeated
        def step(t0: Tensor, t1: Tensor, y: Tensor, slope: Tensor) -> list[Tensor]:
            y1, stages, new = take_step(t0, t1, y, slope)
            own = [plan.weights(ts, t0, t1, t0 == t0).to(y.dtype)] if plan.has_weights else []
            slope = stages[-1] if plan.tableau.is_fsal else slope_at(t1, y1)
            return [y1, slope, *own, *stages, *new]

        states, rows, weights, kept = [], [], list[Tensor](), list[Tensor]()
        for own in ends:
            states.append(y)
            found = iter(step(*own, y, slope))
            next_y, slope = islice(found, 2)
            weights += islice(found, int(plan.has_weights))
            rows.append([y, *islice(found, plan.tableau.num_stages)])
            kept += found
            y = next_y
        has_arrived = ends[-1, 1] == ts[-1] if plan.has_weights else None
        left = plan.left_behind(rows, weights, y, has_arrived)
        return tuple(result.contiguous() for result in (y, slope, *states[1:], *left, *kept))

    def examples() -> list[Any]:
        like = plan.examples
        times = [like.times()] if plan.has_weights else []
        return [like.exact(num_steps, 2), *times, like.y(), *([] if is_first else [like.y()])]

    block.__name__ = f"{num_steps} steps"
    return block, examples
