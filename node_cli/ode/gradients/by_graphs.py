"""The exact gradient of a solve by compiled graphs, by what they kept of a step, or by running it again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.gradients.recorded import refuse_second_derivative
from node_cli.ode.gradients.replay import replay
from node_cli.ode.gradients.same_field import Difference, precision_of, refuse_changed
from node_cli.ode.gradients.time_gradients import TimeGradients
from node_cli.ode.graphs.lowering import NotWhole
from node_cli.ode.graphs.places import groups
from node_cli.ode.graphs.solve_graphs import SolveGraphs, Trace
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import FirstSteps, Solution, SolveStats
from node_cli.ode.states import as_column, on_device, outside_autocast
from node_cli.ode.stepping import plain_stages


@dataclass(eq=False, kw_only=True)
class GraphSolve:
    """A finished solve by compiled graphs, which can be gone through again, backwards; see `RecordedSolve`."""

    graphs: SolveGraphs
    trace: Trace
    precision: float
    backward_stats: SolveStats = field(default_factory=SolveStats)
    inputs_then: list[Tensor] = field(default_factory=list)  # if steps are kept
    versions_then: list[int] = field(default_factory=list)

    def change(self, n: int) -> tuple[float, float]:
        """How far the end of step n is from what it was, if it is run again, and how large it was."""
        slope, tableau = self.graphs.field.slope(self.graphs.inputs), self.graphs.tableau
        y, end = self.trace.states[n : n + 2]
        t0, t1 = (as_column(t, y) for t in torch.from_numpy(self.trace.ends[n]).to(y.device))
        y1, _ = plain_stages(tableau, slope)(t0, t1, y, slope(t0.to(y.dtype), y), with_last_stage=False)
        self.backward_stats.nfe += tableau.num_stages - tableau.is_fsal
        return (y1 - end).abs().max().item(), end.abs().max().item()

    def unchanged_inputs(self) -> list[Tensor]:
        """As autograd would have saved them: refused if something was written into them since."""
        if [tensor._version for tensor in self.inputs_then] != self.versions_then:
            refuse_changed(float(self.trace.ends.min()))
        return self.inputs_then

    def require_same(self, changes: list[tuple[float, float]]) -> None:
        """Refuses steps whose ends are others now: for each, how far the two are apart, and how large one was."""
        device = self.trace.states[0].device
        for n, (distance, size) in enumerate(changes[: len(self.trace.ends)]):
            if distance != 0 and not Difference(distance, size, self.precision).is_from_compiling(device):
                refuse_changed(float(self.trace.ends[n].min()))


def solve_by_graphs(
    solver: RungeKutta,
    graphs: SolveGraphs,
    y0: Tensor,
    ts: Tensor,
    first_steps: FirstSteps,
    *,
    keeps: bool,
    twice: bool,
) -> Solution[Tensor]:
    """See `exact_solve`; `keeps` is its `keeps_graphs`."""
    graphs.has_gradient = y0.requires_grad or ts.requires_grad or bool(graphs.differentiable)
    graphs.with_times = ts.requires_grad
    graphs.keeps = keeps and graphs.has_gradient and not ts.requires_grad
    slope = graphs.field.slope(graphs.inputs)
    solution = solver.integrate(slope, y0, ts, first_step=first_steps.forward, compiled=graphs)
    first_steps.forward = solution.stats.next_first_step
    if not graphs.has_gradient:
        return solution
    assert graphs.trace is not None
    if solver.has_own_steps:
        ts = ts.expand(len(y0), -1)
    solve = GraphSolve(graphs=graphs, trace=graphs.trace, precision=precision_of(y0))
    if graphs.trace.kept:
        solve.inputs_then = [tensor.detach() for tensor in graphs.inputs]
        solve.versions_then = [tensor._version for tensor in graphs.inputs]
    ys: Tensor = _Attached.apply(solve, twice, solution.ys, y0, ts, *graphs.differentiable)
    return Solution(ys, solution.stats, solve.backward_stats)


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, solve: GraphSolve, twice: bool, ys: Tensor, y0: Tensor, ts: Tensor, *inputs: Tensor
    ) -> Tensor:
        ctx.solve, ctx.twice = solve, twice
        ctx.save_for_backward(y0, ts, *inputs)
        return ys.view_as(ys)

    @staticmethod
    def backward(ctx: Any, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        needed, saved = ctx.needs_input_grad[3:], ctx.saved_tensors
        with outside_autocast(grad_ys.device.type):
            twice = torch.is_grad_enabled()
            if twice:
                refuse_second_derivative(ctx.twice)
            if twice or ctx.solve.trace.places is None:
                return None, None, None, *_replayed(ctx.solve, saved, needed, grad_ys, twice=twice)
            try:
                grads = _pulled(ctx.solve, saved[1], needed, grad_ys.contiguous())
            except NotWhole as error:
                ctx.solve.graphs.refuse(error)
                grads = _replayed(ctx.solve, saved, needed, grad_ys, twice=False)
        return None, None, None, *grads


def _pulled(solve: GraphSolve, ts: Tensor, needed: tuple[bool, ...], grad_ys: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of y0, ts and the inputs, None where none is needed."""
    trace, grad_ts = solve.trace, None
    assert trace.places is not None
    grad_y = trace.places.grad_end(grad_ys)
    if trace.kept:
        grad_y, grads = _by_what_was_kept(solve, grad_ys, grad_y)
    else:
        grad_y, grads, grad_ts = _by_running_again(solve, grad_ys, grad_y, with_times=needed[1])
    given = (grad_ys, grad_y, *trace.states, *solve.graphs.inputs)
    return (
        (grad_y if trace.blocks.plan.adds_up else grad_y + grad_ys[0]) if needed[0] else None,
        None if grad_ts is None else grad_ts.to(ts.dtype),
        *(grad if is_needed else None for grad, is_needed in zip(_apart(grads, given), needed[2:], strict=True)),
    )


def _by_running_again(
    solve: GraphSolve, grad_ys: Tensor, grad_y: Tensor, *, with_times: bool
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """The cotangents of the first state, of the inputs that have a gradient, and of the times; from that of the end."""
    blocks, changes, totals = solve.trace.blocks, list[Tensor](), list[Tensor]()
    of_ends, slopes = list[Tensor](), list[Tensor]()
    for _, ends, states, of_outputs in _spans(solve, grad_ys):
        block = blocks.backward(len(ends), with_times=with_times)
        grad_y, *found, change = block([ends, grad_y, *of_outputs, *states, *solve.graphs.inputs])
        changes.append(change)
        if with_times and blocks.plan.interpolates:
            slopes.append(found.pop())
        if with_times:
            of_ends.append(found.pop())
        totals = list(torch._foreach_add(totals, found)) if totals else found
    solve.backward_stats.nfe += len(solve.trace.ends) * solve.graphs.tableau.num_stages
    solve.require_same(torch.cat(changes[::-1]).tolist())
    return grad_y, totals, _time_gradients(solve, grad_ys, of_ends, slopes) if with_times else None


def _by_what_was_kept(solve: GraphSolve, grad_ys: Tensor, grad_y: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The same without times: only the first slope is evaluated again."""
    trace, shares, totals = solve.trace, solve.graphs.tableau.is_fsal, list[Tensor]()
    carried, inputs = [grad_y, torch.zeros_like(grad_y)] if shares else [grad_y], solve.unchanged_inputs()
    for first, ends, states, of_outputs in _spans(solve, grad_ys):
        kept = [trace.kept[min(n, len(trace.kept) - 1)] for n in range(first, first + len(ends))]
        block = trace.blocks.backward_of_kept(len(ends), is_first=first == 0)
        given = [ends, *carried, *of_outputs, *states, *(each for own in kept for each in own), *inputs]
        results = list(block(given))
        num_carried = 1 + (shares and first > 0)
        carried, found = results[:num_carried], results[num_carried:]
        totals = list(torch._foreach_add(totals, found)) if totals else found
    solve.backward_stats.nfe += shares
    return carried[0], totals


def _spans(solve: GraphSolve, grad_ys: Tensor) -> Iterator[tuple[int, Tensor, list[Tensor], list[Tensor]]]:
    """The blocks backwards: the first step of each, the ends of its steps, their states with the last one, and what it
    needs of the outputs' cotangents. Steps of no length fill up the last one, so that all have one size.
    """
    trace, places, blocks = solve.trace, solve.trace.places, solve.trace.blocks
    assert places is not None
    plan, states, num_steps, ends = blocks.plan, trace.states, len(trace.ends), trace.ends
    size = min(blocks.most, num_steps)
    padding = -num_steps % size
    if padding:
        states = [*states, *states[-1:] * padding]
        ends = np.concatenate([ends, ends[-1:, [1, 1]].repeat(padding, 0)])
    all_ends, has_rows = on_device(ends, grad_ys.device), plan.has_outputs and not plan.adds_up
    of_outputs, parts = [] if trace.times is None else [grad_ys, trace.times], [(0, len(ends))]
    if has_rows:
        shape = list(grad_ys.shape[1:])
        shape.insert(int(trace.ts.ndim == 2), plan.num_rows)
        parts = list(groups(len(ends), math.prod(shape), of=size))
    for begin, stop in reversed(parts):
        if has_rows:
            rows = places.grad_rows(grad_ys, begin, [stop - begin, *shape])
        for first in range(stop - size, begin - 1, -size):
            if has_rows:
                of_outputs = [rows[first - begin : first - begin + size]]
            own_ends = all_ends if size == len(ends) else all_ends[first : first + size]
            yield first, own_ends, states[first : first + size + 1], of_outputs


def _apart(grads: list[Tensor], given: Iterable[Tensor]) -> Iterator[Tensor]:
    """Each in memory of its own: a graph may return one tensor as the gradient of two, or one that it was given."""
    taken = {tensor.data_ptr() for tensor in given}
    for grad in grads:
        yield grad.clone() if grad.data_ptr() in taken else grad
        taken.add(grad.data_ptr())


def _time_gradients(solve: GraphSolve, grad_ys: Tensor, of_ends: list[Tensor], slopes: list[Tensor]) -> Tensor:
    """By those of the ends of the steps, and the slopes of steps that outputs lie in, both block by block backwards."""
    gathered = TimeGradients(solve.trace.ts, grad_ys)
    all_slopes = torch.cat(slopes[::-1]) if slopes else None
    for n, (step, (grad_t0, grad_t1)) in enumerate(zip(solve.trace.steps(), torch.cat(of_ends[::-1]), strict=False)):
        moved = 1 if step.accepted is None else step.accepted
        gathered.add_ends(step, moved * grad_t0, moved * grad_t1)
        if len(step.inside):
            assert all_slopes is not None
            gathered.add_outputs(step, grad_ys[step.inside.place], all_slopes[n], solve.graphs.tableau)
    return gathered.grad_ts


def _replayed(
    solve: GraphSolve, saved: tuple[Tensor, ...], needed: tuple[bool, ...], grad_ys: Tensor, *, twice: bool
) -> tuple[Tensor | None, ...]:
    """The same without anything compiled, with a graph of their own if they are to be differentiated `twice`."""
    graphs, trace = solve.graphs, solve.trace
    with torch.no_grad():
        solve.require_same([solve.change(n) for n in range(len(trace.ends))])
    with torch.enable_grad():
        y0, ts, *inputs = views = [tensor.view_as(tensor) for tensor in saved]
        ys = replay(graphs.tableau, graphs.with_inputs(inputs), trace.steps(), y0, ts)
    wanted = list(compress(views, needed))
    found = iter(torch.autograd.grad(ys, wanted, grad_ys, create_graph=twice, allow_unused=True))
    return tuple(next(found) if is_needed else None for is_needed in needed)
