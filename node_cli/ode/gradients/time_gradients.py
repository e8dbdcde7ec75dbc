"""Gradients of the output times: through the times of the stages, the lengths of the steps, and the interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.gradients.trajectory import Point
from node_cli.ode.stepping import Step, dense_tensor
from node_cli.ode.tableaus import Tableau


class TimeGradients:
    """Gathers `grad_ts`, float64, over the steps of a solve, per sample or not.

    The two ends of a step move with the output times that it lies between, as `Step` says; a gradient at a time
    between the two ends is shared between them.
    """

    def __init__(self, ts: Sequence[float], grad_ys: Tensor) -> None:
        self._ts = np.array(ts)
        self.grad_ts = grad_ys.new_zeros(len(ts), dtype=torch.float64)  # batched where those of the states are

    def add_stage(self, step: Step, c: float, grad_t: Tensor) -> None:
        """Of an evaluation at `t0 + c (t1 - t0)`."""
        grad = grad_t.double().reshape(-1)
        self.add_ends(step, (1 - c) * grad, c * grad)

    def add_step(self, step: Step, grad_rows: Tensor, points: list[Point], weights: Tensor) -> None:
        """Of the length of a step: `grad_rows` are the cotangents of its result and stages, each `y + h weights k`."""
        slopes = slopes_of(points)
        if isinstance(step.t0, float):
            products = grad_rows.reshape(len(grad_rows), -1) @ slopes.reshape(len(slopes), -1).t()
            grad_h = (weights * products).sum().double()
        else:
            batch = grad_rows.shape[1]
            grad_slopes = (weights.t() @ grad_rows.reshape(len(grad_rows), -1)).view(slopes.shape)
            grad_h = (grad_slopes * slopes).reshape(len(slopes), batch, -1).sum((0, 2)).double()
        self.add_ends(step, -grad_h, grad_h)

    def add_outputs(self, step: Step, grad_outputs: Tensor, slopes: Tensor, tableau: Tableau) -> None:
        """Of the outputs inside a step, `y + h sum_i b_i(theta) k_i` with `theta = (t - t0) / h`."""
        thetas = [output.theta for output in step.inside]
        weights = dense_tensor(tableau.dense_weights, thetas, slopes)
        derivatives = dense_tensor(tableau.dense_slopes, thetas, slopes)
        for i, output in enumerate(step.inside):
            if isinstance(output.theta, float):
                products = (slopes * grad_outputs[i]).reshape(len(slopes), -1).sum(1)
            else:
                products = (slopes * grad_outputs[i]).reshape(*slopes.shape[:2], -1).sum(2)
            # d/dt is h b'(theta) / h; the step's length enters through h and through theta.
            grad_t = (derivatives[i] * products).sum(0).double()
            theta = torch.as_tensor(output.theta, dtype=torch.float64, device=grad_t.device)
            grad_h = (weights[i] * products).sum(0).double() - theta * grad_t
            self.grad_ts[output.index] += grad_t.sum()
            self.add_ends(step, -grad_t - grad_h, grad_h)

    def add_ends(self, step: Step, grad_t0: Tensor, grad_t1: Tensor) -> None:
        """Of the two ends of a step."""
        for t, grad, at_no_length in ((step.t0, grad_t0, 0.0), (step.t1, grad_t1, 1.0)):
            grad = grad.reshape(-1) if grad.dim() else grad
            share = torch.as_tensor(self._share(step, t, at_no_length), device=grad.device)
            for position, part in ((step.segment[0], (1 - share) * grad), (step.segment[1], share * grad)):
                index = torch.as_tensor(position, device=grad.device).expand(part.numel())
                self.grad_ts.index_add_(0, index, part.reshape(-1))

    def _share(self, step: Step, t: Any, at_no_length: float) -> Any:
        """How much of a change of its segment's second time `t` goes along with, 0 to 1."""
        start, end = self._ts[step.segment[0]], self._ts[step.segment[1]]
        length = np.where(end == start, 1.0, end - start)
        share = np.where(t == end, 1.0, 0.0 if step.is_anchored else (t - start) / length)
        return np.where(end == start, at_no_length, share)


def slopes_of(points: list[Point]) -> Tensor:
    """The slopes that a step made use of, `(len(points), *y.shape)`."""
    slopes = [point.slope for point in points if point.slope is not None]
    assert len(slopes) == len(points), "slopes are kept where times have gradients"
    return torch.stack(slopes)
