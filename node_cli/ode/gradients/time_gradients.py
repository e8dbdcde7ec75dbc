"""Gradients of the output times: through the times of the stages, the lengths of the steps, and the interpolation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.gradients.trajectory import Point
from node_cli.ode.stepping import Step, dense_tensor
from node_cli.ode.tableaus import Array, Tableau


class TimeGradients:
    """Gathers the gradients of the times `ts` over the steps of a solve, of all samples or of each sample's own.

    The two ends of a step move with the output times that it lies between, as `Step` says; a gradient at a time
    between the two ends is shared between them.
    """

    def __init__(self, ts: Array, grad_ys: Tensor) -> None:
        self._ts = ts
        self._rows: Any = np.arange(len(ts)) * ts.shape[1] if ts.ndim == 2 else 0  # where they begin there
        self._grads = grad_ys.new_zeros(ts.size, dtype=torch.float64)  # batched where those of the states are

    @property
    def grad_ts(self) -> Tensor:
        """The gradients, float64, with the shape of the times."""
        return self._grads.view(self._ts.shape)

    def add_stage(self, step: Step, c: float, grad_t: Tensor) -> None:
        """Of an evaluation at `t0 + c (t1 - t0)`."""
        grad = grad_t.double().reshape(-1)
        self.add_ends(step, (1 - c) * grad, c * grad)

    def add_step(self, step: Step, grad_rows: Tensor, points: list[Point], weights: Tensor) -> None:
        """Of the length of a step: `grad_rows` are the cotangents of its result and stages, each `y + h weights k`."""
        slopes = slopes_of(points)
        grad_slopes = (weights.t() @ grad_rows.reshape(len(grad_rows), -1)).view(slopes.shape)
        shape = () if isinstance(step.t0, float) else step.t0.shape
        grad_h = (grad_slopes * slopes).sum(0).reshape(*shape, -1).sum(-1).double()
        self.add_ends(step, -grad_h, grad_h)

    def add_outputs(self, step: Step, grad_outputs: Tensor, slopes: Tensor, tableau: Tableau) -> None:
        """Of the outputs inside a step, `y + h sum_i b_i(theta) k_i` with `theta = (t - t0) / h`."""
        outputs, sample = step.inside, step.inside.sample
        weights = dense_tensor(tableau.dense_weights, outputs, slopes)
        derivatives = dense_tensor(tableau.dense_slopes, outputs, slopes)
        if sample is None:
            products = slopes.reshape(len(slopes), -1) @ grad_outputs.reshape(len(grad_outputs), -1).t()
        else:
            products = (outputs.rows(slopes, 1) * grad_outputs).reshape(len(slopes), len(grad_outputs), -1).sum(2)
        # d/dt is h b'(theta) / h; the step's length enters through h and through theta.
        grad_t = (derivatives * products.t()).sum(1).double()
        theta = torch.as_tensor(np.array(outputs.theta), device=grad_t.device)
        grad_h = (weights * products.t()).sum(1).double() - theta * grad_t
        if sample is None:
            self._add(np.array(outputs.index), grad_t)
            self.add_ends(step, (-grad_t - grad_h).sum(), grad_h.sum())
        else:
            self._add(outputs.index + self._rows[sample], grad_t)
            of_samples = torch.from_numpy(sample).to(grad_t.device)
            both = [grad_t.new_zeros(slopes.shape[1]).index_add_(0, of_samples, grad) for grad in (grad_t, grad_h)]
            self.add_ends(step, -both[0] - both[1], both[1])

    def add_times(self, grad_ts: Tensor) -> None:
        """Of the output times themselves."""
        self._grads += grad_ts.reshape(-1)

    def add_ends(self, step: Step, grad_t0: Tensor, grad_t1: Tensor) -> None:
        """Of the two ends of a step."""
        for which, grad in enumerate((grad_t0, grad_t1)):
            grad = grad.reshape(-1) if grad.dim() else grad
            share = torch.as_tensor(step.share(which, self._ts), device=grad.device)
            self._add(step.segment[0] + self._rows, (1 - share) * grad)
            self._add(step.segment[1] + self._rows, share * grad)

    def _add(self, position: Any, grad: Tensor) -> None:
        index = torch.as_tensor(position, device=grad.device).reshape(-1)
        self._grads.index_add_(0, index, grad.reshape(-1))


def slopes_of(points: list[Point]) -> Tensor:
    """The slopes that a step made use of, `(len(points), *y.shape)`."""
    slopes = [point.slope for point in points if point.slope is not None]
    assert len(slopes) == len(points), "slopes are kept where times have gradients"
    return torch.stack(slopes)
