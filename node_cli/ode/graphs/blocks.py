"""Several steps of a solve in one graph, and several accepted steps backwards in another.

Neither has a branch: what comes after the end of the solve, or after an attempt that was rejected, is masked. All
numbers of the step size control stay in float64 tensors of the graph; the host reads them once for a block.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.control import CUT_OFF, Controller, Norm, Tolerance, choose_first_step, end_of_step
from node_cli.ode.graphs.examples import Examples, Run
from node_cli.ode.stepping import plain_stages
from node_cli.ode.tableaus import Tableau, polynomial

CLOCK = 5  # numbers that go from block to block: the time, the step to try, and the memory of the controller


@dataclass(frozen=True)
class Control:
    """What chooses the size of a step, apart from the tolerances, which have these shapes; the controller is new."""

    norm: Norm
    tolerance_shapes: tuple[torch.Size, ...]
    controller: Controller
    max_step: float

    @property
    def key(self) -> Hashable:
        """Equal for two that are."""
        return self.norm, self.tolerance_shapes, tuple(vars(self.controller).values()), self.max_step


class Blocks:
    """The blocks of one method, each compiled when it is first asked for.

    Of the outputs, all but the last are interpolated if it `interpolates`; else they lie at ends of steps. `expected`
    is how many attempts the last solve made, by its control and by whether its first step was chosen. `most` is the
    number of steps in a block.
    """

    def __init__(self, examples: Examples, tableau: Tableau, *, interpolates: bool) -> None:
        self.expected: dict[Hashable, int] = {}
        self.most = 2 if examples.field.is_short else 1
        self._examples = examples
        self._tableau = tableau
        self._interpolates = interpolates
        self._compiled: dict[Hashable, Run] = {}

    def attempts(self, control: Control, num_attempts: int, start: str) -> Run:
        """So many attempts. `start` is `chosen` or `given`, at the beginning with that first step, or `none`, later.

        Of (clock, ts, y, [slope and outputs so far, unless at the beginning], rtol, atol, inputs): outputs, state,
        slope, clock, log `(attempts, 5)`, and the states that the attempts but the first one started from. Logged are
        both ends, the step that was meant, the error ratio, and the factor of the next step.
        """
        key = (control.key, num_attempts, start)
        return self._kept(key, lambda: self._new_attempts(control, num_attempts, start))

    def steps(self, num_steps: int, *, is_first: bool) -> Run:
        """So many steps of a grid.

        Of (ends `(steps, 2)`, ts, y, [slope and outputs so far, unless at the beginning], inputs): outputs, state,
        slope, and the states that the steps but the first one started from.
        """
        return self._kept((num_steps, is_first), lambda: self._new_steps(num_steps, is_first))

    def backward(self, num_steps: int, *, with_times: bool) -> Run:
        """So many accepted steps backwards, each run again.

        Of (ends `(steps, 2)`, ts, cotangents of the outputs and of the last state, the states that the steps started
        from, the last one, inputs): the cotangents of the first state, of the inputs that have a gradient, [of the ends
        and of ts]; then `(steps, 2)`, how far each end is from what it was and how large it was.
        """
        return self._kept(("back", num_steps, with_times), lambda: self._new_backward(num_steps, with_times))

    def _kept(self, key: Hashable, make: Callable[[], Run]) -> Run:
        if key not in self._compiled:
            self._compiled[key] = make()
        return self._compiled[key]

    def _new_attempts(self, control: Control, num_attempts: int, start: str) -> Run:
        is_first, order = start != "none", self._tableau.error_order
        assert order is not None

        def block(clock: Tensor, ts: Tensor, y: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            (slope, outputs), more = ((y, y), more) if is_first else (more[:2], more[2:])
            (rtol, atol), inputs = more[:2], more[2:]
            field, tolerance = self._examples.field.slope(inputs), Tolerance(rtol, atol, control.norm)
            t, step, *memory = clock.unbind()
            if is_first:
                slope, outputs = field(t.to(y.dtype), y), y.expand(ts.shape[0], *y.shape)
            if start == "chosen":
                step = choose_first_step(tolerance, order, y, slope, (ts[-1] - ts[0]).abs()).double()
            log, states = [], []
            for _ in range(num_attempts):
                states.append(y)
                t1 = end_of_step(torch, t, ts[-1], step, control.max_step)
                y1, stages = plain_stages(self._tableau, field)(t, t1, y, slope)
                ratio = tolerance.ratio(self._error(t1 - t, stages), y, y1).double()
                factor, step_after, memory, is_kept = _decided(control.controller, t, t1, ts[-1], step, memory, ratio)
                log.append(torch.stack([t, t1, step, ratio, factor]))
                outputs = self._with_outputs(outputs, ts, t, t1, y, y1, stages, is_kept)
                y, slope = torch.where(is_kept, y1, y), torch.where(is_kept, stages[-1], slope)
                t, step = torch.where(is_kept, t1, t), step_after
                if not self._tableau.is_fsal:
                    slope = field(t.to(y.dtype), y)
            results = (outputs, y, slope, torch.stack([t, step, *memory]), torch.stack(log), *states[1:])
            return tuple(result.contiguous() for result in results)

        def examples() -> list[Any]:
            like = self._examples
            times, bounds = like.times(), [like.like_y(shape) for shape in control.tolerance_shapes]
            return [like.exact(CLOCK), times, like.y(), *self._so_far(times, is_first), *bounds]

        block.__name__ = f"{num_attempts} attempts"
        return self._examples.compiled(block, examples)

    def _new_steps(self, num_steps: int, is_first: bool) -> Run:
        def block(ends: Tensor, ts: Tensor, y: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            (slope, outputs), inputs = ((y, y), more) if is_first else (more[:2], more[2:])
            field = self._examples.field.slope(inputs)
            if is_first:
                slope, outputs = field(ends[0, 0].to(y.dtype), y), y.expand(ts.shape[0], *y.shape)
            states = []
            for t0, t1 in ends.unbind():
                states.append(y)
                y1, stages = plain_stages(self._tableau, field)(t0, t1, y, slope)
                outputs = self._with_outputs(outputs, ts, t0, t1, y, y1, stages)
                y, slope = y1, stages[-1] if self._tableau.is_fsal else field(t1.to(y.dtype), y1)
            return tuple(result.contiguous() for result in (outputs, y, slope, *states[1:]))

        def examples() -> list[Any]:
            like = self._examples
            times = like.times()
            return [like.exact(num_steps, 2), times, like.y(), *self._so_far(times, is_first)]

        block.__name__ = f"{num_steps} steps"
        return self._examples.compiled(block, examples)

    def _new_backward(self, num_steps: int, with_times: bool) -> Run:
        def block(ends: Tensor, ts: Tensor, grad_outputs: Tensor, grad: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            states, inputs = more[: num_steps + 1], more[num_steps + 1 :]
            inputs = tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in inputs)
            wanted = [tensor for tensor in inputs if tensor.requires_grad]
            if with_times:
                ends, ts = (tensor.detach().requires_grad_() for tensor in (ends, ts))
                wanted += [ends, ts]
            field, grads, changes = self._examples.field.slope(inputs), list[Tensor](), list[Tensor]()
            for n in reversed(range(num_steps)):
                with torch.enable_grad():
                    (t0, t1), y = ends[n], states[n].detach().requires_grad_()
                    y1, stages = plain_stages(self._tableau, field)(t0, t1, y, field(t0.to(y.dtype), y))
                    outputs = self._with_outputs(torch.zeros_like(grad_outputs), ts, t0, t1, y, y1, stages)
                    grad, *found = torch.autograd.grad(
                        [y1, outputs], [y, *wanted], [grad, grad_outputs], allow_unused=True, materialize_grads=True
                    )
                grads = found if not grads else [total + new for total, new in zip(grads, found, strict=True)]
                end = states[n + 1]
                changes.append(torch.stack([(y1.detach() - end).abs().amax(), end.abs().amax()]))
            return (grad.contiguous(), *(each.contiguous() for each in grads), torch.stack(changes[::-1]))

        def examples() -> list[Any]:
            like = self._examples
            times = like.times()
            states = [like.y() for _ in range(num_steps + 2)]
            return [like.exact(num_steps, 2), times, like.states_at(times), *states]

        block.__name__ = f"{num_steps} steps backwards"
        return self._examples.compiled(block, examples)

    def _so_far(self, times: Tensor, is_first: bool) -> list[Tensor]:
        return [] if is_first else [self._examples.y(), self._examples.states_at(times)]

    def _error(self, h: Tensor, stages: Sequence[Tensor]) -> Tensor:
        weights = self._tableau.error_weights
        assert weights is not None
        weighted = [w * k for w, k in zip(weights, stages, strict=True) if w]
        error: Tensor = h.to(stages[0].dtype) * sum(weighted[1:], weighted[0])
        return error

    def _with_outputs(
        self,
        outputs: Tensor,
        ts: Tensor,
        t0: Tensor,
        t1: Tensor,
        y: Tensor,
        y1: Tensor,
        stages: Sequence[Tensor],
        is_kept: Tensor | None = None,
    ) -> Tensor:
        """The outputs with those that lie in a step, its end included."""
        sign, shape = torch.sign(ts[-1] - ts[0]).detach(), (-1, *(1,) * y.dim())
        inside = (sign * (ts - t0) > 0) & (sign * (ts - t1) <= 0)
        if is_kept is not None:
            inside = inside & is_kept
        states = y1.unsqueeze(0)
        if self._interpolates:
            theta = torch.where(inside, (ts - t0) / torch.where(t1 == t0, 1.0, t1 - t0), 0)
            terms = [
                (theta * polynomial(row, theta)).to(y.dtype).view(shape) * stage.unsqueeze(0)
                for row, stage in zip(self._tableau.dense or (), stages, strict=True)
                if any(row)
            ]
            is_end = torch.arange(ts.shape[0], device=ts.device) == ts.shape[0] - 1
            between = y.unsqueeze(0) + (t1 - t0).to(y.dtype) * sum(terms[1:], terms[0])
            states = torch.where(is_end.view(shape), states, between)
        return torch.where(inside.view(shape), states, outputs)


def _decided(
    controller: Controller, t0: Tensor, t1: Tensor, target: Tensor, step: Tensor, memory: list[Tensor], ratio: Tensor
) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
    """After an attempt: the factor, the step to try next, the memory, and whether the step is kept."""
    last, before, may_grow = memory
    factor, *after = controller.changed(torch, ratio, last, before, may_grow > 0)
    tried, is_active = (t1 - t0).abs(), t0 != target
    is_kept = is_active & (ratio <= 1)
    proposed = tried * factor
    meant = torch.where(tried < CUT_OFF * step, torch.maximum(step, proposed), proposed)
    following = torch.where(is_active, torch.where(is_kept, meant, proposed), step)
    return factor, following, [torch.where(is_active, *pair) for pair in zip(after, memory, strict=True)], is_kept
