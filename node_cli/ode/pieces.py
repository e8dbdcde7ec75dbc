"""A solve in pieces, one after the other, at whose seams steps have to end and a vector field may jump."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from node_cli.ode.arguments import Stops
from node_cli.ode.base import Solver, VectorField
from node_cli.ode.gradients import Gradient
from node_cli.ode.solution import FirstSteps, Solution, SolveStats
from node_cli.ode.solvers import Adaptive
from node_cli.ode.states import output_times


def solve_in_pieces(
    gradient: Gradient, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, stops: Stops
) -> Solution[Tensor]:
    """The states at `ts`; each piece is differentiated by `gradient`, and goes on with the step size of the one before.

    At a jump the vector field is evaluated just before it for the step that ends there, just after it for the next one.
    """
    times = output_times(ts)
    sign = math.copysign(1.0, times[-1] - times[0])
    inside = sorted(
        (t for t in {*stops.steps, *stops.jumps} if sign * times[0] < sign * t < sign * times[-1]),
        key=lambda t: sign * t,
    )
    seams = [times[0], *inside, times[-1]]
    ts = ts if ts.device.type == "mps" else ts.double()
    rows, stats, backward = [], SolveStats(), []
    first_steps, start, done = FirstSteps(), ts[:1], 0
    for a, b in zip(seams[:-1], seams[1:], strict=True):
        upto = sum(sign * t <= sign * b for t in times)
        end = ts[:0] if upto > done and times[upto - 1] == b else ts.new_tensor([b])
        own = ts[done:upto] if a == times[0] else torch.cat([start, ts[done:upto]])
        field = _Between(vector_field, *_nudged(a, b, stops.jumps, y0.dtype))
        solution = gradient.solve(solver, field, y0, torch.cat([own, end]), first_steps)
        skipped = len(own) - (upto - done)
        rows.append(solution.ys[skipped : skipped + upto - done])
        stats.add(solution.stats)
        backward.append(solution.backward_stats)
        y0, start, done = solution.ys[-1], ts.new_tensor([b]), upto
        first_steps = FirstSteps(forward=solution.stats.next_step)
        if isinstance(solver, Adaptive) and not isinstance(solver.first_step, str):
            solver = replace(solver, first_step="chosen")
    return Solution(torch.cat(rows), stats, tuple(backward))


def _nudged(a: float, b: float, jumps: tuple[float, ...], dtype: torch.dtype) -> tuple[float, float]:
    """The times between which the vector field is evaluated, in the dtype of the state; from low to high."""
    number: Any = np.float32 if dtype == torch.float32 else np.float64
    first = float(np.nextafter(number(a), number(b))) if a in jumps else a
    last = float(np.nextafter(number(b), number(a))) if b in jumps else b
    return min(first, last), max(first, last)


class _Between(nn.Module):
    """A vector field that is evaluated between two times only. A module, so that its parameters are seen."""

    def __init__(self, vector_field: VectorField[Tensor], low: float, high: float) -> None:
        super().__init__()
        self.vector_field = vector_field
        self.low = low
        self.high = high

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The slope at the nearest time between them, as if that were `t`."""
        return self.vector_field(t + (t.clamp(self.low, self.high) - t).detach(), y)
