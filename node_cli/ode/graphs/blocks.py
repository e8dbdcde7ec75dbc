"""Several steps of a solve in one graph, and several accepted steps backwards in another.

Neither has a branch: what comes after the end of the solve, or after an attempt that was rejected, is masked. All
numbers of the step size control stay in float64 tensors of the graph; the host reads them once for a block. A few
outputs are made in it too; of many, `places.py` makes them of what the steps leave behind.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.control import CUT_OFF, Controller, Norm, Tolerance, choose_first_step, end_of_step
from node_cli.ode.graphs.examples import Examples, Run
from node_cli.ode.graphs.places import dense_weights, weighted_sum
from node_cli.ode.states import as_column
from node_cli.ode.stepping import Slope, plain_stages
from node_cli.ode.tableaus import Tableau

CLOCK = 5  # numbers that go from block to block: the time, the step to try, and the memory of the controller


@dataclass(frozen=True)
class Control:
    """What chooses the size of a step, apart from the tolerances, which have these shapes; the controller is new.

    Of own times, the steps are joint, or those of each sample. With `stepping_onto` every output time ends a step.
    """

    norm: Norm
    tolerance_shapes: tuple[torch.Size, ...]
    controller: Controller
    max_step: float
    is_joint: bool
    stepping_onto: bool

    @cached_property
    def key(self) -> Hashable:
        """Equal for two that are."""
        own = (self.norm, self.tolerance_shapes, self.max_step, self.is_joint, self.stepping_onto)
        return *own, *vars(self.controller).values()


class Blocks:
    """The blocks of one method, each compiled when it is first asked for.

    Times are 0-dim, or `(batch,)` where each sample has its own. `has_outputs` says whether there are any but the
    first and the last one; `interpolates`, whether they are interpolated. Then steps leave behind rows (see
    `places.py`), and have cotangents of them; or, with `adds_up`, they leave behind a sum `(times, *y.shape)`, their
    part of the outputs, and have the cotangents of all outputs. `expected` is how many attempts the last solve made, by
    its control and by whether its first step was chosen. `most` is the number of steps in a block.
    """

    def __init__(
        self, examples: Examples, tableau: Tableau, *, has_outputs: bool, interpolates: bool, adds_up: bool
    ) -> None:
        self.expected: dict[Hashable, int] = {}
        self.most = 2 if examples.field.is_short else 1
        self.has_outputs = has_outputs
        self.interpolates = interpolates
        self.adds_up = adds_up
        self._examples = examples
        self._tableau = tableau
        self._compiled: dict[Hashable, Run] = {}

    @property
    def has_weights(self) -> bool:
        """Whether the blocks weight rows to make outputs, at times that all samples have in common."""
        return self.interpolates and not self._examples.by_sample

    @property
    def num_rows(self) -> int:
        """Of a step: its state, and the stages if outputs are interpolated."""
        return 1 + self.interpolates * self._tableau.num_stages

    def attempts(self, control: Control, num_attempts: int, start: str) -> Run:
        """So many attempts. `start` is `chosen` or `given`, at the beginning with that first step, or `none`, later.

        Of (clock, end, y, [slope, unless at the beginning], rtol, atol, inputs): state, slope, clock, log
        `(attempts, 5, ...)`, the states that the attempts but the first one started from, [rows of the attempts, [and
        their weights in the outputs, `(times, attempts, rows)`], or the sum]. The end is the last time, or all times
        `(times, ...)` if they end steps or there are weights. Logged are both ends, the step that was meant, the error
        ratio, and the factor of the next step.
        """
        key = (control.key, num_attempts, start)
        return self._kept(key, lambda: self._new_attempts(control, num_attempts, start))

    def steps(self, num_steps: int, *, is_first: bool) -> Run:
        """So many steps of a grid.

        Of (ends `(steps, 2, ...)`, [all times], y, [slope, unless at the beginning], inputs): state, slope, the states
        that the steps but the first one started from, [rows of the steps, [and their weights], or the sum].
        """
        return self._kept((num_steps, is_first), lambda: self._new_steps(num_steps, is_first))

    def backward(self, num_steps: int, *, with_times: bool) -> Run:
        """So many accepted steps backwards, each run again.

        Of (ends `(steps, 2, ...)`, the cotangent of the last state, [those of the rows, or of all outputs, and all
        times], the states that the steps started from, the last one, inputs): the cotangents of the first state, of the
        inputs that have a gradient, [of the ends; and the slopes `(steps, stages, *y.shape)`]; then `(steps, 2)`, how
        far each end is from what it was and how large it was.
        """
        return self._kept(("back", num_steps, with_times), lambda: self._new_backward(num_steps, with_times))

    def _kept(self, key: Hashable, make: Callable[[], Run]) -> Run:
        if key not in self._compiled:
            self._compiled[key] = make()
            self._examples.require_size()
        return self._compiled[key]

    def _new_attempts(self, control: Control, num_attempts: int, start: str) -> Run:
        is_first, order = start != "none", self._tableau.error_order
        has_times = control.stepping_onto or self.has_weights
        assert order is not None

        def block(clock: Tensor, ends: Tensor, y: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            slope, more = (y, more) if is_first else (more[0], more[1:])
            (rtol, atol), inputs = more[:2], more[2:]
            (take_step, slope_at), tolerance = self._field(inputs), Tolerance(rtol, atol, control.norm)
            t, *numbers = clock.unbind()
            end = ends[-1] if has_times else ends
            step, *memory = (number.amax() if control.is_joint else number for number in numbers)
            if is_first:
                slope = slope_at(t, y)
            if start == "chosen":
                span = (end - t).abs()
                step = choose_first_step(tolerance, order, y, slope, span.amax() if control.is_joint else span).double()
            log, states, rows, weights = [], [], [], []
            for _ in range(num_attempts):
                states.append(y)
                target = _next(ends, t) if control.stepping_onto else end
                t1 = end_of_step(torch, t, target, step, control.max_step)
                y1, stages = take_step(t, t1, y, slope)
                ratio = tolerance.ratio(self._error(as_column(t1 - t, y), stages), y, y1).double()
                factor, step_after, memory, is_kept = _decided(control.controller, t, t1, end, step, memory, ratio)
                log.append(torch.stack([each.expand_as(t) for each in (t, t1, step, ratio, factor)]))
                rows.append([y, *stages])
                if self.has_weights:
                    weights.append(self._weights(ends, t, t1, is_kept).to(y.dtype))
                y, slope = (torch.where(as_column(is_kept, y), *pair) for pair in ((y1, y), (stages[-1], slope)))
                t, step = torch.where(is_kept, t1, t), step_after
                if not self._tableau.is_fsal:
                    slope = slope_at(t, y)
            clock = torch.stack([each.expand_as(t) for each in (t, step, *memory)])
            left = self._left_behind(rows, weights, y, t == end)
            results = (y, slope, clock, torch.stack(log), *states[1:], *left)
            return tuple(result.contiguous() for result in results)

        def examples() -> list[Any]:
            like = self._examples
            ends = like.times() if has_times else like.exact()
            bounds = [like.like_y(shape) for shape in control.tolerance_shapes]
            return [like.exact(CLOCK), ends, like.y(), *([] if is_first else [like.y()]), *bounds]

        block.__name__ = f"{num_attempts} attempts"
        return self._examples.compiled(block, examples)

    def _new_steps(self, num_steps: int, is_first: bool) -> Run:
        def block(ends: Tensor, y: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            ts = y
            if self.has_weights:
                ts, y, more = y, more[0], more[1:]
            slope, inputs = (y, more) if is_first else (more[0], more[1:])
            take_step, slope_at = self._field(inputs)
            if is_first:
                slope = slope_at(ends[0, 0], y)
            states, rows, weights = [], [], []
            for t0, t1 in ends.unbind():
                states.append(y)
                y1, stages = take_step(t0, t1, y, slope)
                rows.append([y, *stages])
                if self.has_weights:
                    weights.append(self._weights(ts, t0, t1, t0 == t0).to(y.dtype))
                y, slope = y1, stages[-1] if self._tableau.is_fsal else slope_at(t1, y1)
            has_arrived = ends[-1, 1] == ts[-1] if self.has_weights else None
            left = self._left_behind(rows, weights, y, has_arrived)
            return tuple(result.contiguous() for result in (y, slope, *states[1:], *left))

        def examples() -> list[Any]:
            like = self._examples
            times = [like.times()] if self.has_weights else []
            return [like.exact(num_steps, 2), *times, like.y(), *([] if is_first else [like.y()])]

        block.__name__ = f"{num_steps} steps"
        return self._examples.compiled(block, examples)

    def _new_backward(self, num_steps: int, with_times: bool) -> Run:
        def block(ends: Tensor, grad: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            given = self.has_outputs + self.adds_up
            of_outputs, more = more[:given], more[given:]
            states, inputs = more[: num_steps + 1], more[num_steps + 1 :]
            inputs = tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in inputs)
            wanted = [tensor for tensor in inputs if tensor.requires_grad]
            if with_times:
                ends = ends.detach().requires_grad_()
                wanted.append(ends)
            take_step, slope_at = self._field(inputs)
            grads, slopes, changes = list[Tensor](), list[Tensor](), list[Tensor]()
            for n in reversed(range(num_steps)):
                with torch.enable_grad():
                    (t0, t1), y = ends[n], states[n].detach().requires_grad_()
                    y1, stages = take_step(t0, t1, y, slope_at(t0, y))
                    of_rows = self._of_rows(n, ends[n].detach(), of_outputs)
                    results, cotangents = [y1, *stages][: max(1, len(of_rows))], [grad, *of_rows[1:]]
                    grad, *found = torch.autograd.grad(
                        results, [y, *wanted], cotangents, allow_unused=True, materialize_grads=True
                    )
                grad = grad + of_rows[0] if of_rows else grad
                grads = found if not grads else [total + new for total, new in zip(grads, found, strict=True)]
                end = states[n + 1]
                changes.append(torch.stack([(y1.detach() - end).abs().amax(), end.abs().amax()]))
                slopes.append(torch.stack(stages).detach())
            kept = [torch.stack(slopes[::-1])] if with_times and self.interpolates else []
            return (*(each.contiguous() for each in (grad, *grads, *kept)), torch.stack(changes[::-1]))

        def examples() -> list[Any]:
            like = self._examples
            of_outputs = [like.rows(num_steps, self.num_rows)] if self.has_outputs else []
            if self.adds_up:
                times = like.times()
                of_outputs = [like.like_y([times.shape[0], *like.field.y.shape]), times]
            states = [like.y() for _ in range(num_steps + 1)]
            return [like.exact(num_steps, 2), like.y(), *of_outputs, *states]

        block.__name__ = f"{num_steps} steps backwards"
        return self._examples.compiled(block, examples)

    @property
    def _axis(self) -> int:
        """Of rows."""
        return int(self._examples.by_sample)

    def _field(self, inputs: Sequence[Tensor]) -> tuple[Callable[..., tuple[Tensor, list[Tensor]]], Slope]:
        """A step, and the slope, at times as the blocks have them."""
        slope = self._examples.field.slope(inputs)
        step = plain_stages(self._tableau, slope)
        return (
            lambda t0, t1, y, dy: step(as_column(t0, y), as_column(t1, y), y, dy),
            lambda t, y: slope(as_column(t, y).to(y.dtype), y),
        )

    def _left_behind(
        self, rows: list[list[Tensor]], weights: list[Tensor], y: Tensor, has_arrived: Tensor | None
    ) -> list[Tensor]:
        """Of all steps up to the state `y`, for the outputs: the sum, or rows and weights, in a tensor each."""
        if self.adds_up:
            assert has_arrived is not None
            total = weighted_sum(torch.cat(weights, 1), [row for own in rows for row in own])
            number = torch.arange(total.shape[0], device=y.device)
            is_last = as_column((number == total.shape[0] - 1) & has_arrived, total)
            return [torch.where(is_last, y, total)]
        stacked = [torch.stack([torch.stack(own, self._axis) for own in rows])] if self.interpolates else []
        return [*stacked, torch.stack(weights, 1)] if weights else stacked

    def _of_rows(self, n: int, ends: Tensor, of_outputs: Sequence[Tensor]) -> list[Tensor]:
        """The cotangents of the rows of step n, if there are any."""
        if not self.adds_up:
            return [each for rows in of_outputs for each in rows[n].unbind(self._axis)]
        (grad_ys, ts), (t0, t1) = of_outputs, ends.unbind()
        weights = self._weights(ts, t0, t1, True).to(grad_ys.dtype)
        return [(as_column(column, grad_ys) * grad_ys).sum(0) for column in weights.unbind(1)]

    def _weights(self, ts: Tensor, t0: Tensor, t1: Tensor, is_kept: Tensor | bool) -> Tensor:
        return dense_weights(self._tableau, ts, t0, t1, is_kept, with_first=self.adds_up)

    def _error(self, h: Tensor, stages: Sequence[Tensor]) -> Tensor:
        weights = self._tableau.error_weights
        assert weights is not None
        weighted = [w * k for w, k in zip(weights, stages, strict=True) if w]
        error: Tensor = h.to(stages[0].dtype) * sum(weighted[1:], weighted[0])
        return error


def _next(ends: Tensor, t: Tensor) -> Tensor:
    """The time that comes after `t`."""
    sign = torch.sign(ends[-1] - t)
    after = torch.where(sign * (ends - t) > 0, sign * ends, torch.inf).amin(0)
    return torch.where(sign == 0, t, sign * after)


def _decided(
    controller: Controller, t0: Tensor, t1: Tensor, end: Tensor, step: Tensor, memory: list[Tensor], ratio: Tensor
) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
    """After an attempt: the factor, the step to try next, the memory, and whether the step is kept."""
    last, before, may_grow = memory
    factor, *after = controller.changed(torch, ratio, last, before, may_grow > 0)
    tried, is_active, moves = (t1 - t0).abs(), t0 != end, ratio <= 1
    is_kept = is_active & moves
    if tried.dim() > step.dim():  # times of their own, but one step for all
        tried, is_active = tried.amax(), is_active.any()
    proposed = tried * factor
    meant = torch.where(tried < CUT_OFF * step, torch.maximum(step, proposed), proposed)
    following = torch.where(is_active, torch.where(moves, meant, proposed), step)
    return factor, following, [torch.where(is_active, *pair) for pair in zip(after, memory, strict=True)], is_kept
