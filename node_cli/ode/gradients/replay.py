"""The steps of a solve once more in plain operations of autograd: slow, but differentiable as often as one likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.stepping import Slope, Step, as_column
from node_cli.ode.tableaus import Row, Tableau


def replay(tableau: Tableau, vector_field: Slope, steps: Sequence[Step], y0: Tensor, ts: Tensor) -> Tensor:
    """States at `ts` with a graph for `y0`, `ts` and all that the vector field uses; the steps keep their shares."""
    y, ys = y0, [y0] * len(ts)
    for step in steps:
        t0, t1 = (as_column(_moving_time(step, which, ts), y) for which in (0, 1))
        h = (t1 - t0).to(y.dtype)
        slopes: list[Tensor] = []
        for row, c in zip(((), *tableau.a), tableau.c, strict=True):
            stage = y + h * _combination(row, slopes)
            slopes.append(vector_field((t0 + c * (t1 - t0)).to(y.dtype), stage).to(y.dtype))
        y1 = y + h * _combination(tableau.b, slopes)
        for output in step.ends:
            ys[output.index] = _where(output.mask, y1, ys[output.index])
        for output in step.inside:
            theta = (ts[output.index] - t0) / torch.where(t0 == t1, 1.0, t1 - t0)
            state = y + h * _combination([weight.to(y.dtype) for weight in tableau.dense_weights(theta)], slopes)
            ys[output.index] = _where(output.mask, state, ys[output.index])
        y = y1 if step.accepted is None else torch.where(as_column(step.accepted, y), y1, y)
    return torch.stack(ys)


def _combination(weights: Row | list[Any], slopes: list[Tensor]) -> Any:
    return sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))


def _where(mask: Any, yes: Tensor, no: Tensor) -> Tensor:
    return yes if mask is None else torch.where(as_column(torch.from_numpy(mask).to(yes.device), yes), yes, no)


def _moving_time(step: Step, which: int, ts: Tensor) -> Tensor:
    """The start (0) or end (1) of a step as a function of the two output times that it moves with."""
    start, end = ts[torch.as_tensor(step.segment[0])], ts[torch.as_tensor(step.segment[1])]
    t = torch.as_tensor((step.t0, step.t1)[which], dtype=ts.dtype, device=ts.device)
    has_length = start != end
    if step.is_anchored:
        share = torch.where(t == end, 1.0, 0.0)
    else:
        share = (t - start.detach()) / torch.where(has_length, end - start, 1.0).detach()
    share = torch.where(has_length, share, float(which))
    return t + (1 - share) * (start - start.detach()) + share * (end - end.detach())
