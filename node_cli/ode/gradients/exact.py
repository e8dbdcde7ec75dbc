"""What `direct` and `checkpoint` share: a solve that is recorded step by step, for the exact gradient of its steps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.base import VectorField
from node_cli.ode.gradients.by_graphs import solve_by_graphs
from node_cli.ode.gradients.inputs import WatchedVectorField
from node_cli.ode.gradients.recorded import RecordedSolve, attach
from node_cli.ode.gradients.same_field import precision_of
from node_cli.ode.gradients.trajectory import TapedVectorField, Trajectory
from node_cli.ode.graphs.solve_graphs import SolveGraphs
from node_cli.ode.runge_kutta import RungeKutta, compiled_field, compiled_steps
from node_cli.ode.solution import FirstSteps, Solution
from node_cli.ode.states import keep_autocast, on_host
from node_cli.ode.stepping import Slope
from node_cli.ode.vector_field import outside_transforms


def exact_solve(
    solver: RungeKutta,
    vector_field: VectorField[Tensor],
    y0: Tensor,
    ts: Tensor,
    first_steps: FirstSteps,
    *,
    max_checkpoints: int | None = None,
    keeps_graphs: bool = False,
    twice: bool = False,
) -> Solution[Tensor]:
    """A solve whose steps are run again in the backward pass, or, with `keeps_graphs`, whose evaluations have graphs.

    With compiled steps no graph is kept, and of a compiled solve the tensors that its gradient needs.

    `max_checkpoints` bounds the states that are kept (None: of every step). With `twice` there are second derivatives.
    """
    vector_field, device = outside_transforms(vector_field, y0, ts), y0.device.type
    asked = solver.asked_times(ts, y0)
    ts = asked.ts
    compiled = compiled_steps(solver, vector_field, y0, ts, keeps_states=max_checkpoints is None)
    if isinstance(compiled, SolveGraphs) and torch.is_grad_enabled():
        solution = solve_by_graphs(solver, compiled, y0, ts, first_steps, keeps=keeps_graphs, twice=twice)
        return asked.spread(solution)
    raw, first_step = keep_autocast(vector_field, device), first_steps.forward
    field = keep_autocast(compiled_field(solver, vector_field, y0), device)
    if isinstance(compiled, SolveGraphs) or not torch.is_grad_enabled():
        return asked.spread(solver.integrate(field, y0, ts, first_step=first_step, compiled=compiled))
    watched = WatchedVectorField(field, first=raw, keep_watching=not y0.requires_grad)
    has_tape = keeps_graphs and compiled is None
    tape = TapedVectorField(watched, times_have_gradients=ts.requires_grad) if has_tape else None
    trajectory = Trajectory(solver.tableau, max_checkpoints, tape)
    slope: Slope = watched if tape is None else tape
    solution = solver.integrate(
        slope, y0.detach(), ts, first_step=first_step, record=trajectory.keep, compiled=compiled
    )
    watched.stop_watching()
    first_steps.forward = solution.stats.next_first_step
    if solver.has_own_steps:
        ts = ts.expand(len(y0), -1)
    solve = RecordedSolve(
        tableau=solver.tableau,
        vector_field=watched,
        ts=np.array(on_host(ts)),
        steps=trajectory.steps,
        states=trajectory.states,
        end=solution.ys[-1].clone(),
        with_times=ts.requires_grad,
        precision=precision_of(y0),
        is_compiled=solver.is_compiled,
        points=trajectory.points,
        compiled=compiled,
    )
    ys = attach(solve, solution.ys, y0, ts, twice=twice)
    return asked.spread(Solution(ys, solution.stats, solve.backward_stats))
