"""Blocks of accepted steps backwards; `blocks.py` says what they take and return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from node_cli.ode.graphs.block_plan import BlockPlan
from node_cli.ode.graphs.copying import Repeated
from node_cli.ode.graphs.examples import Source


def run_again(plan: BlockPlan, num_steps: int, *, with_times: bool) -> Source:
    """See `Blocks.backward`."""

    def block(ends: Tensor, grad: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        given = plan.has_outputs + plan.adds_up
        of_outputs, more = more[:given], more[given:]
        states, inputs = more[: num_steps + 1], more[num_steps + 1 :]
        inputs, wanted = _leaves(inputs)
        take_step, slope_at = plan.field(inputs)

        @Repeated
        def step(ends: Tensor, y: Tensor, end: Tensor, grad: Tensor, *of_rows: Tensor) -> list[Tensor]:
            with torch.enable_grad():
                ends, y = ends.detach().requires_grad_(with_times), y.detach().requires_grad_()
                t0, t1 = ends
                y1, stages, _ = take_step(t0, t1, y, slope_at(t0, y))
                results, cotangents = [y1, *stages][: max(1, len(of_rows))], [grad, *of_rows[1:]]
                leaves = [y, *([ends] if with_times else []), *wanted]
                grad, *found = torch.autograd.grad(
                    results, leaves, cotangents, allow_unused=True, materialize_grads=True
                )
            grad = grad + of_rows[0] if of_rows else grad
            change = torch.stack([(y1.detach() - end).abs().amax(), end.abs().amax()])
            return [grad, change, torch.stack(stages).detach(), *found]

        grad_rows = plan.grad_rows(of_outputs)
        grads, of_ends, slopes, changes = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
        for n in reversed(range(num_steps)):
            own = ends[n]
            grad, change, own_slopes, *found = step(own, states[n], states[n + 1], grad, *grad_rows(n, own))
            changes.append(change)
            slopes.append(own_slopes)
            of_ends += found[:with_times]
            grads = _added(grads, found[with_times:])
        kept = [torch.stack(of_ends[::-1])] if with_times else []
        kept += [torch.stack(slopes[::-1])] if with_times and plan.interpolates else []
        return (*(each.contiguous() for each in (grad, *grads, *kept)), torch.stack(changes[::-1]))

    def examples() -> list[Any]:
        like = plan.examples
        states = [like.y() for _ in range(num_steps + 1)]
        return [like.exact(num_steps, 2), like.y(), *plan.like_outputs(num_steps), *states]

    block.__name__ = f"{num_steps} steps backwards"
    return block, examples


def of_kept(plan: BlockPlan, num_steps: int, *, is_first: bool) -> Source:
    """See `Blocks.backward_of_kept`."""
    shares = plan.tableau.is_fsal

    def block(ends: Tensor, grad: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        grad_slope, more = (more[0], more[1:]) if shares else (grad, more)
        given = plan.has_outputs + plan.adds_up
        of_outputs, more = more[:given], more[given:]
        states, more = more[: num_steps + 1], more[num_steps + 1 :]
        split = plan.split_step
        num_kept = num_steps * split.num_kept
        kept, inputs = more[:num_kept], more[num_kept:]
        grads, grad_rows = list[Tensor](), plan.grad_rows(of_outputs)
        for n in reversed(range(num_steps)):
            t0, t1 = ends[n].unbind()
            of_rows = grad_rows(n, ends[n])
            of_stages = of_rows[1:] if len(of_rows) > 1 else [torch.zeros_like(grad)] * plan.tableau.num_stages
            if shares:
                of_stages[-1] = of_stages[-1] + grad_slope
            own = kept[n * split.num_kept : (n + 1) * split.num_kept]
            grad, *found = split.backward(t0, t1, states[n], states[n + 1], own, inputs, grad, of_stages)
            if shares:
                grad_slope, *found = found
            grad, grads = grad + of_rows[0] if of_rows else grad, _added(grads, found)
        if shares and is_first:
            grad, grads = _through_first_slope(plan, ends[0, 0], states[0], inputs, grad, grad_slope, grads)
        of_start = [grad, grad_slope] if shares and not is_first else [grad]
        return tuple(each.contiguous() for each in (*of_start, *grads))

    def examples() -> list[Any]:
        like = plan.examples
        states = [like.y() for _ in range(num_steps + 1)]
        kept = [tensor for _ in range(num_steps) for tensor in plan.split_step.like_kept()]
        cotangents = [*(like.y() for _ in range(1 + shares)), *plan.like_outputs(num_steps)]
        return [like.exact(num_steps, 2), *cotangents, *states, *kept]

    block.__name__ = f"{num_steps} steps backwards"
    return block, examples


def _through_first_slope(
    plan: BlockPlan,
    t: Tensor,
    y: Tensor,
    inputs: tuple[Tensor, ...],
    grad: Tensor,
    grad_slope: Tensor,
    grads: list[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """The cotangents of the state and the inputs with what came through the first evaluation."""
    inputs, wanted = _leaves(inputs)
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        slope = plan.field(inputs)[1](t, y)
        of_y, *found = torch.autograd.grad(slope, [y, *wanted], grad_slope, allow_unused=True, materialize_grads=True)
    return grad + of_y, _added(grads, found)


def _leaves(inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Their like as leaves, and those of them that have a gradient."""
    inputs = tuple(tensor.detach().requires_grad_(tensor.requires_grad) for tensor in inputs)
    return inputs, [tensor for tensor in inputs if tensor.requires_grad]


def _added(totals: list[Tensor], new: list[Tensor]) -> list[Tensor]:
    """The sums, or the new ones where there are no totals yet."""
    return [total + each for total, each in zip(totals, new, strict=True)] if totals else list(new)
