"""The steps of a solve once more in plain operations of autograd: slow, but differentiable as often as one likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.stepping import Slope, Step, as_column, plain_step
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
    y, ys = y0, [y0] * len(ts)
    take_step = plain_step(tableau, vector_field)
    for step in steps:
        t0, t1 = (as_column(_moving_time(step, which, ts, made_for), y) for which in (0, 1))
        y1, stages = take_step(t0, t1, y, vector_field(t0.to(y.dtype), y))
        for output in step.ends:
            ys[output.index] = _where(output.mask, y1, ys[output.index])
        for output in step.inside:
            theta = (ts[output.index] - t0) / torch.where(t0 == t1, 1.0, t1 - t0)
            weights = [as_column(theta * polynomial(row, theta), y) for row in tableau.dense or ()]
            change = sum(weight.to(y.dtype) * slope for weight, slope in zip(weights, stages, strict=True))
            state = y + (t1 - t0).to(y.dtype) * change
            ys[output.index] = _where(output.mask, state, ys[output.index])
        y = y1 if step.accepted is None else torch.where(as_column(step.accepted, y), y1, y)
    return torch.stack(ys)


def _where(mask: Any, yes: Tensor, no: Tensor) -> Tensor:
    return yes if mask is None else torch.where(as_column(torch.from_numpy(mask).to(yes.device), yes), yes, no)


def _moving_time(step: Step, which: int, ts: Tensor, made_for: Tensor) -> Tensor:
    """The start (0) or end (1) of a step as a function of the two output times that it moves with."""
    ends = [torch.as_tensor(index) for index in step.segment]
    start, end = (made_for[index] for index in ends)
    t = torch.as_tensor((step.t0, step.t1)[which], dtype=ts.dtype, device=ts.device)
    has_length = start != end
    if step.is_anchored:
        share = torch.where(t == end, 1.0, 0.0)
    else:
        share = (t - start) / torch.where(has_length, end - start, 1.0)
    share = torch.where(has_length, share, float(which))
    return t + (1 - share) * (ts[ends[0]] - start) + share * (ts[ends[1]] - end)
