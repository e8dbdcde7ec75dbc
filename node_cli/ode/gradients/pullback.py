"""The gradient of a solve, step by step backwards: each evaluation is pulled back alone, the rest is linear algebra.

A Runge-Kutta step is linear in its slopes, so the cotangents of its stages are linear combinations of those of the
later stages, by the same coefficients: from y1 = y + h sum_i b_i k_i, Y_i = y + h sum_j a_ij k_j, k_i = f(t_i, Y_i)
follows, with * for the cotangent,

    k_i* = h (b_i y1* + sum_{j > i} a_ji Y_j*),    Y_i* = k_i* df/dy,    y* = y1* + sum_i Y_i*

(Sanz-Serna 2016, "Symplectic Runge-Kutta schemes for adjoint equations, automatic differentiation, optimal control",
section 3). Step sizes are held fixed, as shares of their interval: the exact gradient of the steps that were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.gradients.known import KnownInputs
from node_cli.ode.gradients.time_gradients import TimeGradients, slopes_of
from node_cli.ode.gradients.trajectory import Evaluations, Point, WholeStep
from node_cli.ode.states import as_column
from node_cli.ode.stepping import Outputs, Step, as_factor, dense_tensor, exact_tensor, weights_of
from node_cli.ode.tableaus import Array, Tableau


class Pullback:
    """Pulls `grad_ys` back through the steps of one solve, which `step` is given in reverse order.

    In the end `grad_y` is the gradient of `y0`, `grad_inputs` those of `inputs` (None where there is none), which are
    among the `known` leaves that the vector field uses, and `grad_ts` those of the output times, if `with_times`.
    """

    def __init__(
        self,
        tableau: Tableau,
        inputs: Sequence[Tensor],
        known: KnownInputs,
        ts: Array,
        grad_ys: Tensor,
        *,
        with_times: bool,
    ) -> None:
        self._tableau = tableau
        self._weights = weights_of(tableau, grad_ys.dtype, grad_ys.device)
        self._inputs = tuple(inputs)
        self._known = known
        self._grad_ys = grad_ys
        self._times = TimeGradients(ts, grad_ys) if with_times else None
        self._shared: tuple[Point, Tensor] | None = None  # the first evaluation of the step after, and its cotangent
        self._is_owned: list[bool] = [False] * len(inputs)
        self.grad_y = torch.zeros_like(grad_ys[0])
        num_own = tableau.num_stages - tableau.is_fsal
        self._rows = grad_ys.new_empty(num_own, *grad_ys.shape[1:])  # y1*, then Y_i* from the last stage on
        self._columns = [self._rows[:count].view(count, -1).t() for count in range(1, num_own + 1)]
        self.grad_inputs: list[Tensor | None] = [None] * len(inputs)

    @property
    def grad_ts(self) -> Tensor | None:
        """Gradients of the output times, float64, with the shape of the times."""
        return self._times.grad_ts if self._times else None

    def step(self, step: Step, evaluations: Evaluations) -> None:
        """Pulls `grad_y` from the end of a step to its start.

        Of its evaluations the last one may be missing if the next step has it.
        """
        if len(step.ends):
            self.grad_y = self.grad_y + self._summed(self._grad_ys[step.ends.place], step.ends)
        h = as_factor(step.t1 - step.t0, self.grad_y)
        moved = None if step.accepted is None else as_column(step.accepted, self.grad_y)
        grad_outputs, grad_stages = self._through_interpolation(step.inside, h)
        slopes: Tensor | None
        if isinstance(evaluations, WholeStep):
            grad_y, slopes = self._pull_whole_step(step, evaluations, moved, grad_stages)
        else:
            grad_y, slopes = self._pull_stages(step, evaluations, h, moved, grad_stages)
        if moved is not None:
            grad_y = grad_y + torch.where(moved, 0, self.grad_y)
        if grad_outputs is not None:
            grad_y = grad_y + self._summed(grad_outputs, step.inside)
            if self._times:
                assert slopes is not None
                self._times.add_outputs(step, grad_outputs, slopes, self._tableau)
        self.grad_y = grad_y

    def _pull_stages(
        self, step: Step, points: list[Point], h: Any, moved: Tensor | None, grad_stages: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Through the evaluations one by one: the cotangent of the start, and the slopes if outputs need them."""
        last = points[-1] if self._shared is None else self._shared[0]
        left_over = self._pull_last_stage(step, last, grad_stages, moved)
        grad_y1 = self.grad_y if moved is None else torch.where(moved, self.grad_y, 0)
        num_own = self._tableau.num_stages - self._tableau.is_fsal
        rows = self._rows
        rows[0].copy_(grad_y1)
        grad_start = None
        for count, i in enumerate(reversed(range(num_own)), start=1):
            grad_dy = _combine(
                self._columns[count - 1],
                self._weights.columns[i],
                h,
                grad_y1,
                None if grad_stages is None else grad_stages[i],
            )
            if i > 0:
                rows[count].copy_(self._pull(points[i], grad_dy, step, self._tableau.c[i]))
            elif self._tableau.is_fsal:
                self._shared = points[0], grad_dy if left_over is None else grad_dy + left_over
            else:
                grad_start = self._pull(points[0], grad_dy, step, 0.0)
        grad_y = rows.sum(0)
        if grad_start is not None:
            grad_y += grad_start
        if not self._times:
            return grad_y, None
        self._times.add_step(step, rows, points[:num_own], self._weights.rows)
        stages = [*points[:num_own], last][: self._tableau.num_stages]
        return grad_y, slopes_of(stages) if len(step.inside) else None

    def finish(self, first: Step | None) -> None:
        """Pulls back what depends on the start of the first step, if there was one."""
        if self._shared is not None and first is not None:
            self.grad_y = self.grad_y + self._pull(*self._shared, first, 0.0)
        self.grad_y = self.grad_y + self._grad_ys[0]

    def _pull_whole_step(
        self, step: Step, whole: WholeStep, moved: Tensor | None, grad_stages: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Through a step that is run again as one, with the slope at its start: its cotangent, and the slopes."""
        grad_y1 = self.grad_y if moved is None else torch.where(moved, self.grad_y, 0)
        ends = (exact_tensor(t, whole.y) for t in (step.t0, step.t1))
        with_times = self._times is not None
        pulled, y1, slopes = whole.functions.pull(*ends, whole.y, grad_y1, grad_stages, self._inputs, with_times)
        whole.compare(y1)
        grad_y, *grads = pulled
        if self._times:
            self._times.add_ends(step, *grads[-2:])
            del grads[-2:]
        for i, grad in enumerate(grads):
            self._add_input(i, grad)
        return grad_y, slopes

    def _through_interpolation(self, outputs: Outputs, h: Any) -> tuple[Tensor | None, Tensor | None]:
        """Cotangents of the outputs inside a step, one after the other, and what they add to those of its stages."""
        if not len(outputs):
            return None, None
        grads = self._grad_ys[outputs.place]
        weights = dense_tensor(self._tableau.dense_weights, outputs, grads)
        if outputs.sample is None:
            return grads, (weights.t() @ grads.view(len(grads), -1)).view(-1, *grads.shape[1:]).mul_(h)
        weighted = weights.t().reshape(*weights.shape[::-1], *(1,) * (grads.dim() - 1)) * grads
        return grads, self._summed(weighted, outputs, 1).mul_(h)

    def _summed(self, grads: Tensor, outputs: Outputs, dim: int = 0) -> Tensor:
        """The sum along `dim` over the outputs; of each sample, if they are those of single samples."""
        if outputs.sample is None:
            return grads.sum(dim)
        sample = torch.from_numpy(outputs.sample).to(grads.device)
        sums = grads.new_zeros(*grads.shape[:dim], *self.grad_y.shape)
        return sums.index_add_(dim, sample, grads)

    def _pull_last_stage(
        self, step: Step, point: Point, grad_stages: Tensor | None, moved: Tensor | None
    ) -> Tensor | None:
        """Adds to `grad_y` what comes through the slope at the end of a step, if that is one of its stages.

        Returns the cotangent of the next step's first slope for the samples that did not move: for them that slope is
        the first one of this step.
        """
        if not self._tableau.is_fsal or (self._shared is None and grad_stages is None):
            return None
        grad_dy = torch.zeros_like(point.y) if self._shared is None else self._shared[1]
        left_over = None
        if moved is not None:
            left_over, grad_dy = torch.where(moved, 0, grad_dy), torch.where(moved, grad_dy, 0)
        if grad_stages is not None:
            grad_dy = grad_dy + grad_stages[-1]
        self._shared = None
        self.grad_y = self.grad_y + self._pull(point, grad_dy, step, 1.0)
        return left_over

    def _pull(self, point: Point, grad_dy: Tensor, step: Step, c: float) -> Tensor:
        """Y* = k* df/dy at one evaluation; gathers the gradients of everything else it depends on."""
        if point.edge is None:
            return torch.zeros_like(point.y)
        self._known.check(point.edge.node, point.y, point.t)
        wanted = (point.y, *self._inputs, *([point.t] if self._times else []))
        with self._known.side.opened() if point.is_watched else nullcontext():
            grad_y, *grads = torch.autograd.grad((point.edge,), wanted, (grad_dy,), allow_unused=True)
        if self._times:
            grad_t = grads.pop()
            if grad_t is not None:
                self._times.add_stage(step, c, grad_t)
        for i, grad in enumerate(grads):
            if grad is not None:
                self._add_input(i, grad)
        return torch.zeros_like(point.y) if grad_y is None else grad_y

    def _add_input(self, i: int, grad: Tensor) -> None:
        total = self.grad_inputs[i]
        if total is None:
            self.grad_inputs[i] = grad  # may be shared with others, so it is not added to in place
        elif self._is_owned[i]:
            total.add_(grad)
        else:
            self.grad_inputs[i], self._is_owned[i] = total + grad, True


def _combine(columns: Tensor, weights: Tensor, h: Any, like: Tensor, start: Tensor | None) -> Tensor:
    """`start + h columns weights` with the shape of `like`, in one pass over the memory."""
    if isinstance(h, Tensor):
        combined = torch.mv(columns, weights).view(like.shape).mul_(h)
        return combined if start is None else combined.add_(start)
    base, beta = (columns[:, 0], 0) if start is None else (start.reshape(-1), 1)
    return torch.addmv(base, columns, weights, beta=beta, alpha=h).view(like.shape)
