"""The steps of a solve once more in plain operations of autograd: slow, but differentiable as often as one likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.stepping import Outputs, Slope, Step, as_column, plain_step
from node_cli.ode.tableaus import Tableau, polynomial


def replay(
    tableau: Tableau,
    vector_field: Slope,
    steps: Sequence[Step],
    y0: Tensor,
    ts: Tensor,
    made_for: Tensor | None = None,
) -> Tensor:
    """States at `ts` with a graph for `y0`, `ts` and all that the vector field uses; the steps keep their shares.

    `made_for` are the times that the steps were made for, if not `ts`.
    """
    made_for = ts.detach() if made_for is None else made_for
    if steps and not isinstance(steps[0].t0, float):
        ts, made_for = (times.expand(len(y0), -1) for times in (ts, made_for))
    y, ys = y0, y0.expand(ts.shape[-1], *y0.shape)
    take_step = plain_step(tableau, vector_field)
    for step in steps:
        t0, t1 = (_moving_time(step, which, ts, made_for) for which in (0, 1))
        ends = as_column(t0, y), as_column(t1, y)
        y1, stages = take_step(*ends, y, vector_field(ends[0].to(y.dtype), y))
        if len(step.ends):
            ys = _with(ys, step.ends, y1 if step.ends.sample is None else y1[step.ends.sample])
        if len(step.inside):
            ys = _with(ys, step.inside, _interpolated(tableau, step.inside, ts, t0, t1, y, stages))
        y = y1 if step.accepted is None else torch.where(as_column(step.accepted, y), y1, y)
    return ys


def _with(ys: Tensor, outputs: Outputs, states: Tensor) -> Tensor:
    """The states at all times, with those at the outputs in their places."""
    return ys.index_put(tuple(torch.as_tensor(part, device=ys.device) for part in outputs.place), states)


def _interpolated(
    tableau: Tableau, outputs: Outputs, ts: Tensor, t0: Tensor, t1: Tensor, y: Tensor, stages: Tensor
) -> Tensor:
    """The states at outputs inside a step from `t0` to `t1`."""
    t = ts[outputs.place[::-1]]
    if outputs.sample is not None:
        t0, t1, y, stages = t0[outputs.sample], t1[outputs.sample], y[outputs.sample], stages[:, outputs.sample]
    theta = (t - t0) / torch.where(t0 == t1, 1.0, t1 - t0)
    weights = torch.stack([theta * polynomial(row, theta) for row in tableau.dense or ()]).to(y.dtype)
    change = torch.einsum("sn,s...->n..." if outputs.sample is None else "sn,sn...->n...", weights, stages)
    h = (t1 - t0).to(y.dtype)
    states: Tensor = y + (h if h.dim() == 0 else as_column(h, y)) * change
    return states


def _moving_time(step: Step, which: int, ts: Tensor, made_for: Tensor) -> Tensor:
    """The start (0) or end (1) of a step as a function of the two output times that it moves with."""
    places: list[Any] = [index if ts.dim() == 1 else (np.arange(len(ts)), index) for index in step.segment]
    start, end = (made_for[place] for place in places)
    t = torch.as_tensor((step.t0, step.t1)[which], dtype=ts.dtype, device=ts.device)
    has_length = start != end
    if step.is_anchored:
        share = torch.where(t == end, 1.0, 0.0)
    else:
        share = (t - start) / torch.where(has_length, end - start, 1.0)
    share = torch.where(has_length, share, float(which))
    return t + (1 - share) * (ts[places[0]] - start) + share * (ts[places[1]] - end)
