"""The exact gradient of a solve by compiled graphs: each step is run again, and pulled back, by one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.gradients.recorded import refuse_second_derivative
from node_cli.ode.gradients.replay import replay
from node_cli.ode.gradients.same_field import Difference, precision_of, refuse_changed
from node_cli.ode.gradients.time_gradients import TimeGradients
from node_cli.ode.graphs.lowering import NotWhole
from node_cli.ode.graphs.solve_graphs import SolveGraphs, Trace, as_exact_tensor
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import FirstSteps, Solution, SolveStats
from node_cli.ode.states import outside_autocast
from node_cli.ode.stepping import exact_tensor, plain_stages


@dataclass(frozen=True, eq=False, kw_only=True)
class GraphSolve:
    """A finished solve by compiled graphs, which can be gone through again, backwards; see `RecordedSolve`."""

    graphs: SolveGraphs
    trace: Trace
    precision: float
    backward_stats: SolveStats = field(default_factory=SolveStats)

    def change(self, n: int) -> tuple[float, float]:
        """How far the end of step n is from what it was, if it is run again, and how large it was."""
        slope, tableau = self.graphs.field.slope(self.graphs.inputs), self.graphs.tableau
        y, end = self.trace.states[n : n + 2]
        t0, t1 = (exact_tensor(t, y) for t in self.trace.ends[n])
        y1, _ = plain_stages(tableau, slope)(t0, t1, y, slope(t0.to(y.dtype), y), with_last_stage=False)
        self.backward_stats.nfe += tableau.num_stages - tableau.is_fsal
        return (y1 - end).abs().max().item(), end.abs().max().item()

    def require_same(self, changes: list[tuple[float, float]]) -> None:
        """Refuses steps whose ends are others now: for each, how far the two are apart, and how large one was."""
        for (t0, _), change in zip(self.trace.ends, changes, strict=False):
            if not Difference(*change, self.precision).is_rounding:
                refuse_changed(t0)


def solve_by_graphs(
    solver: RungeKutta,
    graphs: SolveGraphs,
    y0: Tensor,
    ts: Tensor,
    first_steps: FirstSteps,
    *,
    twice: bool,
) -> Solution[Tensor]:
    """See `exact_solve`."""
    slope = graphs.field.slope(graphs.inputs)
    solution = solver.integrate(slope, y0.detach(), ts, first_step=first_steps.forward, compiled=graphs)
    first_steps.forward = solution.stats.next_first_step
    if not (y0.requires_grad or ts.requires_grad or graphs.differentiable):
        return solution
    assert graphs.trace is not None
    solve = GraphSolve(graphs=graphs, trace=graphs.trace, precision=precision_of(y0))
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
            if torch.is_grad_enabled():
                refuse_second_derivative(ctx.twice)
                return None, None, None, *_replayed(ctx.solve, saved, needed, grad_ys, twice=True)
            try:
                grads = _pulled(ctx.solve, saved[1], needed, grad_ys.contiguous())
            except NotWhole as error:
                ctx.solve.graphs.refuse(error)
                grads = _replayed(ctx.solve, saved, needed, grad_ys, twice=False)
        return None, None, None, *grads


def _pulled(solve: GraphSolve, ts: Tensor, needed: tuple[bool, ...], grad_ys: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of y0, ts and the inputs, None where none is needed."""
    inputs, trace, with_times = solve.graphs.inputs, solve.trace, needed[1]
    times, flat = (as_exact_tensor(tuple(each), grad_ys.device) for each in (trace.ts, chain(*trace.ends)))
    last, states, most = len(trace.ends), trace.states, trace.blocks.most
    if last > 1 and last % most:  # a step of no length, for blocks of one size
        flat = as_exact_tensor((*chain(*trace.ends), *[trace.ends[-1][1]] * 2), grad_ys.device)
        last, states = last + 1, [*states, states[-1]]
    ends, grad_y, changes = flat.view(last, 2), torch.zeros_like(grad_ys[0]), list[Any]()
    totals, of_ends = list[Tensor](), list[Tensor]()
    while last > 0:
        first = max(0, last - most)
        block = trace.blocks.backward(last - first, with_times=with_times)
        grad_y, *found, change = block([ends[first:last], times, grad_ys, grad_y, *states[first : last + 1], *inputs])
        changes.append(change)
        if with_times:
            of_ends.append(found.pop(-2))
        # Two tensors may have one gradient, which is then one in memory too: not to be added to in place.
        totals = [total + new for total, new in zip(totals, found, strict=True)] if totals else list(found)
        last = first
    solve.backward_stats.nfe += len(trace.ends) * solve.graphs.tableau.num_stages
    solve.require_same(torch.cat(changes[::-1]).tolist())
    grad_ts = None
    if with_times:
        gathered = TimeGradients(np.array(trace.ts), grad_ys)
        gathered.add_times(totals.pop())
        for step, grads in zip(trace.steps(), torch.cat(of_ends[::-1]), strict=False):
            gathered.add_ends(step, *grads)
        grad_ts = gathered.grad_ts.to(ts.dtype)
    at_start = sum(t == trace.ts[0] for t in trace.ts)  # outputs that are y0 itself
    return (
        grad_y + grad_ys[:at_start].sum(0) if needed[0] else None,
        grad_ts,
        *(grad.clone() if is_needed else None for grad, is_needed in zip(totals, needed[2:], strict=True)),
    )


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
