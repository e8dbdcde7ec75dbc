"""The steps of a solve once more in plain operations of autograd: slow, but differentiable as often as one likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.states import as_column, on_host
from node_cli.ode.stepping import Slope, Step, plain_step
from node_cli.ode.tableaus import Array, Tableau, polynomial


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
    made_for = ts if made_for is None else made_for
    if steps and not isinstance(steps[0].t0, float):
        ts, made_for = (times.expand(len(y0), -1) for times in (ts, made_for))
    before = np.array(on_host(made_for))
    y, ys = y0, y0.expand(ts.shape[-1], *y0.shape)
    take_step = plain_step(tableau, vector_field)
    for step in steps:
        t0, t1 = (_moving_time(step, which, ts, before) for which in (0, 1))
        start = as_column(t0, y)
        y1, stages = take_step(start, as_column(t1, y), y, vector_field(start.to(y.dtype), y))
        for outputs in filter(len, (step.ends, step.inside)):
            states = outputs.rows(y1)
            if outputs is step.inside:
                begin, h = outputs.rows(t0), outputs.rows(t1 - t0)
                theta = (ts[outputs.place[::-1]] - begin) / torch.where(h == 0, 1.0, h)
                weights = torch.stack([theta * polynomial(row, theta) for row in tableau.dense or ()]).to(y.dtype)
                change = torch.einsum("sn,sn...->n...", weights, outputs.rows(stages, 1))
                states = outputs.rows(y) + h.to(y.dtype).view(-1, *(1,) * (change.dim() - 1)) * change
            ys = ys.index_put(tuple(torch.as_tensor(part, device=ys.device) for part in outputs.place), states)
        y = y1 if step.accepted is None else torch.where(as_column(step.accepted, y), y1, y)
    return ys


def _moving_time(step: Step, which: int, ts: Tensor, before: Array) -> Tensor:
    """The start (0) or end (1) of a step as a function of the two output times that it moves with."""
    places: list[Any] = [index if ts.dim() == 1 else (np.arange(len(ts)), index) for index in step.segment]
    first, second = (ts[place] - torch.as_tensor(before[place], device=ts.device) for place in places)
    moving = ((step.t0, step.t1)[which], step.share(which, before))
    t, share = (torch.as_tensor(each, dtype=torch.float64, device=ts.device) for each in moving)
    return t + (1 - share) * first + share * second
