"""The exact gradient of a solve by compiled graphs: each step is run again, and pulled back, by one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.gradients.recorded import refuse_second_derivative
from node_cli.ode.gradients.replay import replay
from node_cli.ode.gradients.same_field import Comparison, Difference, precision_of, refuse_changed
from node_cli.ode.gradients.time_gradients import TimeGradients
from node_cli.ode.gradients.trajectory import Trajectory
from node_cli.ode.graphs.lowering import NotWhole
from node_cli.ode.graphs.stepper import SolveGraphs
from node_cli.ode.graphs.whole import MOST, as_exact_tensor
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import FirstSteps, Solution, SolveStats
from node_cli.ode.states import as_column, on_host, outside_autocast
from node_cli.ode.stepping import Step, exact_tensor, plain_stages
from node_cli.ode.tableaus import Array


@dataclass(frozen=True, eq=False, kw_only=True)
class GraphSolve:
    """A finished solve by compiled graphs, which can be gone through again, backwards; see `RecordedSolve`."""

    graphs: SolveGraphs
    trajectory: Trajectory
    ts: Tensor
    end: Tensor
    precision: float
    backward_stats: SolveStats = field(default_factory=SolveStats)

    @cached_property
    def steps(self) -> list[Step]:
        """All accepted steps."""
        trace = self.graphs.trace
        return self.trajectory.steps if trace is None else trace.steps()

    @property
    def times(self) -> Array:
        """The output times on the host."""
        return np.array(on_host(self.ts))

    def backwards(self) -> Iterator[tuple[Step, int, Tensor, Tensor]]:
        """The steps in reverse order: each with its number, its state and the one that it led to."""
        end, trace = self.end, self.graphs.trace
        kept = self.trajectory.states.backwards(self.advance)
        for n, y in kept if trace is None else reversed(list(enumerate(trace.states[:-1]))):
            yield self.steps[n], n, y, end
            end = y

    def advance(self, n: int, y: Tensor) -> Tensor:
        """The state after step n, made once more from its state `y`."""
        step, tableau, slope = self.steps[n], self.graphs.tableau, self.graphs.field.slope(self.graphs.inputs)
        t0, t1 = (exact_tensor(t, y) for t in (step.t0, step.t1))
        y1, _ = plain_stages(tableau, slope)(t0, t1, y, slope(t0.to(y.dtype), y), with_last_stage=False)
        self.backward_stats.nfe += tableau.num_stages - tableau.is_fsal
        return y1 if step.accepted is None else torch.where(as_column(step.accepted, y), y1, y)

    def require_same(self, comparison: Comparison) -> None:
        """Refuses steps that were others when they were run again."""
        worst = comparison.worst()
        if worst is not None and not worst[1].is_rounding:
            refuse_changed(float(np.min(self.steps[worst[0]].t0)))


def solve_by_graphs(
    solver: RungeKutta,
    graphs: SolveGraphs,
    y0: Tensor,
    ts: Tensor,
    first_steps: FirstSteps,
    *,
    max_checkpoints: int | None,
    twice: bool,
) -> Solution[Tensor]:
    """See `exact_solve`."""
    trajectory = Trajectory(solver.tableau, max_checkpoints, None)
    graphs.keeps_states = max_checkpoints is None
    solution = solver.integrate(
        graphs.field.slope(graphs.inputs),
        y0.detach(),
        ts,
        first_step=first_steps.forward,
        record=trajectory.keep,
        compiled=graphs,
    )
    first_steps.forward = solution.stats.next_first_step
    if solver.has_own_steps:
        ts = ts.expand(len(y0), -1)
    if not (y0.requires_grad or ts.requires_grad or graphs.differentiable):
        return solution
    solve = GraphSolve(
        graphs=graphs,
        trajectory=trajectory,
        ts=ts.detach(),
        end=solution.ys[-1].clone() if graphs.trace is None else graphs.trace.states[-1],
        precision=precision_of(y0),
    )
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
            pulled = _pulled_in_blocks if ctx.solve.graphs.trace is not None and not needed[1] else _pulled
            try:
                grads = pulled(ctx.solve, saved[1], needed, grad_ys.contiguous())
            except NotWhole as error:
                ctx.solve.graphs.refuse(error)
                grads = _replayed(ctx.solve, saved, needed, grad_ys, twice=False)
        return None, None, None, *grads


def _pulled(solve: GraphSolve, ts: Tensor, needed: tuple[bool, ...], grad_ys: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of y0, ts and the inputs, None where none is needed."""
    graphs, tableau, with_times = solve.graphs, solve.graphs.tableau, needed[1]
    num_own = tableau.num_stages - tableau.is_fsal
    functions, comparison = graphs.functions(), Comparison(solve.precision)
    times = TimeGradients(solve.times, grad_ys) if with_times else None
    grad_y, grad_inputs = torch.zeros_like(grad_ys[0]), [torch.zeros_like(x) for x in graphs.differentiable]
    for step, n, y, end in solve.backwards():
        if len(step.ends):
            grads = grad_ys[step.ends.rows_of_times]
            grad_y = grad_y + _summed(grads, step.ends.sample, grad_y)
        arguments = [graphs.ends(step.t0, step.t1, y), y, end, grad_y]
        if step.accepted is not None:
            arguments.append(as_column(step.accepted, y))
        has_outputs = len(step.inside) > 0
        if has_outputs:
            arguments += [grad_ys[step.inside.rows_of_times].contiguous(), *graphs.outputs(step.inside, y)]
        pull = functions.pull(has_outputs=has_outputs, with_times=with_times, with_mask=step.accepted is not None)
        grad_y, *found = pull([*arguments, *graphs.inputs])
        solve.backward_stats.nfe += num_own + (tableau.is_fsal and has_outputs)
        comparison.add_norms(n, found[-2:])
        if grad_inputs:
            torch._foreach_add_(grad_inputs, found[: len(grad_inputs)])
        if times is not None:
            times.add_ends(step, *found[len(grad_inputs)])
            if has_outputs:
                times.add_theta(step, found[len(grad_inputs) + 1])
    solve.require_same(comparison)
    return (
        grad_y + grad_ys[0] if needed[0] else None,
        times.grad_ts.to(ts.dtype) if times else None,
        *(grad if is_needed else None for grad, is_needed in zip(grad_inputs, needed[2:], strict=True)),
    )


def _pulled_in_blocks(
    solve: GraphSolve, ts: Tensor, needed: tuple[bool, ...], grad_ys: Tensor
) -> tuple[Tensor | None, ...]:
    """The same, without gradients of ts, for several steps at a time."""
    graphs, trace, changes = solve.graphs, solve.graphs.trace, list[Tensor]()
    assert trace is not None
    times, ends = (as_exact_tensor(tuple(each), grad_ys.device) for each in (trace.ts, chain(*trace.ends)))
    grad_y, last = grad_ys[-1], len(trace.ends)
    ends = ends.view(last, 2)
    grad_inputs: list[Tensor] = []
    while last > 0:
        first = max(0, last - MOST)
        arguments = [ends[first:last], times, grad_ys, grad_y, *trace.states[first : last + 1], *graphs.inputs]
        grad_y, *found, change = trace.blocks.backward(last - first)(arguments)
        changes.append(change)
        if grad_inputs:
            torch._foreach_add_(grad_inputs, list(found))
        else:
            grad_inputs = list(found)
        last = first
    solve.backward_stats.nfe += len(trace.ends) * graphs.tableau.num_stages
    pairs = (torch.cat(changes[::-1]) if len(changes) > 1 else changes[0]).tolist()
    if not all(Difference(distance, size, solve.precision).is_rounding for distance, size in pairs):
        comparison = Comparison(solve.precision)
        comparison.add_steps(torch.cat(changes[::-1]))
        solve.require_same(comparison)
    return (
        grad_y + grad_ys[0] if needed[0] else None,
        None,
        *(grad if is_needed else None for grad, is_needed in zip(grad_inputs, needed[2:], strict=True)),
    )


def _summed(grads: Tensor, sample: Array | None, like: Tensor) -> Tensor:
    if sample is None:
        return grads.sum(0)
    return torch.zeros_like(like).index_add_(0, torch.from_numpy(sample).to(grads.device), grads)


def _replayed(
    solve: GraphSolve, saved: tuple[Tensor, ...], needed: tuple[bool, ...], grad_ys: Tensor, *, twice: bool
) -> tuple[Tensor | None, ...]:
    """The same without anything compiled, with a graph of their own if they are to be differentiated `twice`."""
    comparison = Comparison(solve.precision)
    with torch.no_grad():
        for _, n, y, end in solve.backwards():
            comparison.add(n, solve.advance(n, y), end)
    solve.require_same(comparison)
    with torch.enable_grad():
        y0, ts, *inputs = views = [tensor.view_as(tensor) for tensor in saved]
        ys = replay(solve.graphs.tableau, solve.graphs.with_inputs(inputs), solve.steps, y0, ts)
    wanted = list(compress(views, needed))
    found = iter(torch.autograd.grad(ys, wanted, grad_ys, create_graph=twice, allow_unused=True))
    return tuple(next(found) if is_needed else None for is_needed in needed)
