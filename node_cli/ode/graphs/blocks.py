"""Several attempts of an adaptive solve in one graph, and several accepted steps backwards in another.

Neither has a branch: what comes after the end of the solve, or after an attempt that was rejected, is masked. All
numbers of the step size control stay in float64 tensors of the graph; the host reads them once for a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.control import CUT_OFF, Controller, Norm, Tolerance, choose_first_step, end_of_step
from node_cli.ode.graphs.examples import Examples, Run
from node_cli.ode.graphs.functions import interpolated
from node_cli.ode.stepping import Slope, plain_stages
from node_cli.ode.tableaus import Tableau

NUM_LOGGED = 5  # numbers of an attempt: its two ends, the step that was meant, its error ratio, and the factor


class Blocks:
    """The blocks of one method, norm and step size control, each compiled when it is first asked for.

    `expected` is how many attempts the last solve made; None: there was none.
    """

    def __init__(
        self, examples: Examples, tableau: Tableau, norm: Norm, controller: Controller, max_step: float
    ) -> None:
        self.expected: int | None = None
        self._examples = examples
        self._tableau = tableau
        self._norm = norm
        self._controller = controller
        self._max_step = max_step
        self._forwards: dict[tuple[int, str], Run] = {}
        self._backwards: dict[int, Run] = {}

    def forward(self, num_attempts: int, start: str) -> Run:
        """So many attempts. `start` is `chosen` or `given`, at the beginning with that first step, or `none`, later.

        Of (clock, ts, y, [slope and outputs so far, unless at the beginning], rtol, atol, inputs): outputs, state,
        slope, clock, log `(attempts, NUM_LOGGED)`, and the states that the attempts but the first one started from.
        The clock has t, the step to try, and the memory of the controller.
        """
        key = (num_attempts, start)
        if key not in self._forwards:
            self._forwards[key] = self._new_forward(num_attempts, start)
        return self._forwards[key]

    def backward(self, num_steps: int) -> Run:
        """So many accepted steps backwards, each run again.

        Of (ends `(steps, 2)`, ts, cotangents of the outputs and of the last state, the states that the steps started
        from, the last one, inputs): the cotangents of the first state and of the inputs that have a gradient; then
        `(2, steps)`, how far each end is from what it was and how large it was.
        """
        if num_steps not in self._backwards:
            self._backwards[num_steps] = self._new_backward(num_steps)
        return self._backwards[num_steps]

    def _new_forward(self, num_attempts: int, start: str) -> Run:
        is_first = start != "none"

        def block(clock: Tensor, ts: Tensor, y: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            (slope, outputs), more = (more[:2], more[2:]) if not is_first else ((y, y), more)
            (rtol, atol), inputs = more[:2], more[2:]
            field, tolerance = self._examples.field.slope(inputs), Tolerance(rtol, atol, self._norm)
            t, step, *memory = clock.unbind()
            if is_first:
                outputs = y.expand(ts.shape[0], *y.shape)
                slope = field(t.to(y.dtype), y)
            if start == "chosen":
                assert self._tableau.error_order is not None
                longest = (ts[-1] - ts[0]).abs()
                step = choose_first_step(tolerance, self._tableau.error_order, y, slope, longest).double()
            log, states = [], []
            for number in range(num_attempts):
                if number:
                    states.append(y)
                t, step, memory, logged, y, slope, outputs = self._attempt(
                    field, tolerance, t, step, memory, ts, y, slope, outputs
                )
                log.append(logged)
            clock = torch.stack([t, step, *memory])
            results = (outputs, y, slope, clock, torch.stack(log), *states)
            return tuple(result.contiguous() for result in results)

        block.__name__ = f"{num_attempts} attempts"

        def examples() -> list[Any]:
            like = self._examples
            times = like.times(2)
            rest = [] if is_first else [like.y(), like.states_at(times)]
            return [like.clock(), times, like.y(), *rest, *like.tolerance()]

        return self._examples.compiled(block, examples)

    def _attempt(
        self,
        field: Slope,
        tolerance: Tolerance,
        t: Tensor,
        step: Tensor,
        memory: Sequence[Tensor],
        ts: Tensor,
        y: Tensor,
        slope: Tensor,
        outputs: Tensor,
    ) -> Any:
        tableau, target = self._tableau, ts[-1]
        t1 = end_of_step(torch, t, target, step, self._max_step)
        y1, stages = plain_stages(tableau, field)(t, t1, y, slope)
        assert tableau.error_weights is not None
        weighted = [w * k for w, k in zip(tableau.error_weights, stages, strict=True) if w]
        error = (t1 - t).to(y.dtype) * sum(weighted[1:], weighted[0])
        ratio = tolerance.ratio(error, y, y1).double()
        last, before, may_grow = memory
        factor, *after = self._controller.changed(torch, ratio, last, before, may_grow > 0)
        tried, is_active = (t1 - t).abs(), t != target
        is_kept = is_active & (ratio <= 1)
        proposed = tried * factor
        kept_step = torch.where(tried < CUT_OFF * step, torch.maximum(step, proposed), proposed)
        next_step = torch.where(is_active, torch.where(is_kept, kept_step, proposed), step)
        memory = [torch.where(is_active, new, old) for new, old in zip(after, memory, strict=True)]
        logged = torch.stack([t, t1, step, ratio, factor])
        inside = (is_inside(ts, t, t1) & is_kept).view(-1, *(1,) * y.dim())
        states = interpolated(tableau, t1 - t, y, stages, shares(ts, t, t1))
        at_end = (torch.arange(ts.shape[0], device=ts.device) == ts.shape[0] - 1).view(inside.shape)
        outputs = torch.where(inside, torch.where(at_end, y1, states), outputs)
        y, slope = torch.where(is_kept, y1, y), torch.where(is_kept, stages[-1], slope)
        t = torch.where(is_kept, t1, t)
        if not tableau.is_fsal:
            slope = field(t.to(y.dtype), y)
        return t, next_step, memory, logged, y, slope, outputs

    def _new_backward(self, num_steps: int) -> Run:
        def block(ends: Tensor, ts: Tensor, grad_outputs: Tensor, grad: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
            states, inputs = more[: num_steps + 1], more[num_steps + 1 :]
            inputs = tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in inputs)
            wanted, grads = [tensor for tensor in inputs if tensor.requires_grad], list[Tensor]()
            field, changes = self._examples.field.slope(inputs), list[Tensor]()
            for n in reversed(range(num_steps)):
                t0, t1 = ends[n]
                inside = is_inside(ts, t0, t1) & (torch.arange(ts.shape[0], device=ts.device) < ts.shape[0] - 1)
                theta = torch.where(inside, shares(ts, t0, t1), 0)
                cotangent = torch.where(inside.view(-1, *(1,) * grad.dim()), grad_outputs, 0)
                with torch.enable_grad():
                    y = states[n].detach().requires_grad_()
                    y1, stages = plain_stages(self._tableau, field)(t0, t1, y, field(t0.to(y.dtype), y))
                    outputs = interpolated(self._tableau, t1 - t0, y, stages, theta)
                    grad, *found = torch.autograd.grad(
                        [y1, outputs], [y, *wanted], [grad, cotangent], allow_unused=True, materialize_grads=True
                    )
                grads = found if not grads else [total + new for total, new in zip(grads, found, strict=True)]
                end = states[n + 1]
                changes.append(torch.stack([(y1.detach() - end).abs().amax(), end.abs().amax()]))
            return (grad.contiguous(), *(each.contiguous() for each in grads), torch.stack(changes[::-1]))

        block.__name__ = f"{num_steps} steps backwards"

        def examples() -> list[Any]:
            like = self._examples
            times = like.times(2)
            return [like.ends(num_steps), times, like.states_at(times), *[like.y() for _ in range(num_steps + 2)]]

        return self._examples.compiled(block, examples)


def is_inside(ts: Tensor, t0: Tensor, t1: Tensor) -> Tensor:
    """Which of the times, after the first, lie in a step, its end included."""
    sign = torch.sign(ts[-1] - ts[0])
    return (sign * (ts - t0) > 0) & (sign * (ts - t1) <= 0)


def shares(ts: Tensor, t0: Tensor, t1: Tensor) -> Tensor:
    """How far the times are through a step: 0 at its start, 1 at its end."""
    return (ts - t0) / torch.where(t1 == t0, 1.0, t1 - t0)
