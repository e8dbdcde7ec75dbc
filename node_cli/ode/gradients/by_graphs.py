"""The exact gradient of a solve by compiled graphs: each step is run again, and pulled back, by one of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.gradients.binomial import ThinnedStates
from node_cli.ode.gradients.recorded import refuse_second_derivative
from node_cli.ode.gradients.replay import replay
from node_cli.ode.gradients.same_field import Comparison, precision_of, refuse_changed
from node_cli.ode.gradients.time_gradients import TimeGradients
from node_cli.ode.gradients.trajectory import Trajectory
from node_cli.ode.graphs.blocks import Blocks
from node_cli.ode.graphs.lowering import NotWhole
from node_cli.ode.graphs.stepper import SolveGraphs
from node_cli.ode.graphs.whole import MOST
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import FirstSteps, Solution, SolveStats
from node_cli.ode.states import as_column, on_host, outside_autocast
from node_cli.ode.stepping import Step, exact_tensor, plain_stages
from node_cli.ode.tableaus import Array


@dataclass(frozen=True, eq=False, kw_only=True)
class GraphSolve:
    """A finished solve by compiled graphs, which can be gone through again, backwards; see `RecordedSolve`."""

    graphs: SolveGraphs
    ts: Array
    steps: list[Step]
    states: ThinnedStates
    end: Tensor
    precision: float
    blocks: Blocks | None  # if every state is kept, and outputs are those of blocks
    backward_stats: SolveStats = field(default_factory=SolveStats)

    def backwards(self) -> Iterator[tuple[Step, int, Tensor, Tensor]]:
        """The steps in reverse order: each with its number, its state and the one that it led to."""
        end = self.end
        for n, y in self.states.backwards(self.advance):
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
        ts=np.array(on_host(ts)),
        steps=trajectory.steps,
        states=trajectory.states,
        end=solution.ys[-1].clone(),
        precision=precision_of(y0),
        blocks=graphs.used if max_checkpoints is None else None,
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
            pulled = _pulled_in_blocks if ctx.solve.blocks is not None and not needed[1] else _pulled
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
    times = TimeGradients(solve.ts, grad_ys) if with_times else None
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
    graphs, tableau, steps, blocks = solve.graphs, solve.graphs.tableau, solve.steps, solve.blocks
    assert blocks is not None
    states = [*[y for _, y in solve.states.backwards(solve.advance)][::-1], solve.end]
    times, changes = torch.from_numpy(solve.ts).to(grad_ys.device), []
    grad_y, last = grad_ys[-1], len(steps)
    grad_inputs: list[Tensor] = []
    while last > 0:
        size = min(last, MOST)
        ends = torch.tensor([(step.t0, step.t1) for step in steps[last - size : last]], dtype=torch.float64)
        arguments = [ends.to(times.device), times, grad_ys, grad_y, *states[last - size : last + 1], *graphs.inputs]
        grad_y, *found, change = blocks.backward(size)(arguments)
        changes.append(change)
        if grad_inputs:
            torch._foreach_add_(grad_inputs, list(found))
        else:
            grad_inputs = list(found)
        last -= size
    inside = sum(len(step.inside) > 0 for step in steps)
    solve.backward_stats.nfe += len(steps) * (tableau.num_stages - tableau.is_fsal) + tableau.is_fsal * inside
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
    wanted = list(itertools.compress(views, needed))
    found = iter(torch.autograd.grad(ys, wanted, grad_ys, create_graph=twice, allow_unused=True))
    return tuple(next(found) if is_needed else None for is_needed in needed)
