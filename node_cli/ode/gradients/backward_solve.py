"""The solve backwards in time of the adjoint method: state, adjoint and the gradients of the inputs in one state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from node_cli.ode import synchronised
from node_cli.ode.base import NormOfParts, Solver
from node_cli.ode.errors import ArgumentError
from node_cli.ode.gradients.inputs import WatchedVectorField
from node_cli.ode.gradients.known import KnownInputs
from node_cli.ode.gradients.recorded import refuse_second_derivative
from node_cli.ode.gradients.same_field import is_repeatable, refuse_changed, restored
from node_cli.ode.solution import FirstSteps, SolveStats
from node_cli.ode.states import as_column

log = logging.getLogger(__name__)

MAX_DRIFT = 0.1  # |y_back - y| / |y| from which on a gradient may be far off

Augmented = Callable[..., tuple[Tensor, ...]]  # of t, the state and, where t is a function of a time s, dt/ds


@dataclass(frozen=True)
class BackwardProblem:
    """What the backward solve of one solve needs; its cost is in `stats`."""

    solver: Solver
    norm: NormOfParts
    vector_field: WatchedVectorField
    first_steps: FirstSteps
    is_shared: bool  # by processes, which take the same steps
    sums_gradients: bool  # of parameters, over processes
    precision: float  # of the vector field
    stats: SolveStats = field(default_factory=SolveStats)


class AdjointSolve(torch.autograd.Function):
    """The states of a solve without a graph, with the gradient that a backward solve gives them."""

    @staticmethod
    def forward(ctx: Any, problem: BackwardProblem, ys: Tensor, y0: Tensor, ts: Tensor, *inputs: Tensor) -> Tensor:
        ctx.problem = problem
        ctx.save_for_backward(ts, ys, *inputs)
        return ys.view_as(ys)

    @staticmethod
    def backward(ctx: Any, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            refuse_second_derivative(allowed=False)
        if torch._C._functorch.is_legacy_batchedtensor(grad_ys):
            raise ArgumentError(
                "{adjoint} solves backwards for one vector at a time, not for a batch of them (vectorize=True, "
                "is_grads_batched=True): leave that out, or take {direct}"
            )
        problem: BackwardProblem = ctx.problem
        ts, ys, *inputs = ctx.saved_tensors
        with restored(problem.vector_field.written):
            _require_same_slope(problem)
            grad_y0, grad_ts, grads = _solve_backwards(
                problem, ts, ys, inputs, grad_ys, with_times=ctx.needs_input_grad[3]
            )
        return None, None, grad_y0, grad_ts, *grads


def _solve_backwards(
    problem: BackwardProblem, ts: Tensor, ys: Tensor, inputs: list[Tensor], grad_ys: Tensor, *, with_times: bool
) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
    """The gradients of y0, ts and the inputs."""
    augmented = _augmented_vector_field(problem.vector_field)
    if problem.sums_gradients:
        augmented = _with_summed_gradients(augmented)
    lengths = _lengths(problem, ts) if ts.dim() == 2 else None
    parts = tuple(_as_part(torch.zeros_like(tensor), ys) for tensor in inputs if tensor.numel())
    grad_ts = torch.zeros_like(ts) if with_times else None
    adjoint = torch.zeros_like(ys[0])
    first_step, next_first_step = problem.first_steps.backward, None
    distances: list[Tensor] = []
    for i in range(ts.shape[-1] - 1, 0, -1):
        if grad_ts is not None:
            grad_ts[..., i] = _times_slope(problem, grad_ys[i], ts[..., i], ys[i])
        state = (ys[i], adjoint + grad_ys[i], *parts)
        field, interval = augmented, ts[..., [i, i - 1]]
        if lengths is not None:
            field, interval = _in_common_time(augmented, interval, lengths[i - 1], ys[i])
        solution = problem.solver.integrate(field, state, interval, norm=problem.norm, first_step=first_step)
        problem.stats.add(solution.stats)
        # What one interval has found out about the step size holds for the next one.
        first_step = solution.stats.next_step
        next_first_step = next_first_step or solution.stats.next_first_step
        y, adjoint, *rest = (y[-1] for y in solution.ys)
        parts = tuple(rest)
        distances += [y - ys[i - 1], ys[i - 1]]
    if grad_ts is not None:
        grad_ts[..., 0] = -_times_slope(problem, adjoint, ts[..., 0], ys[0])
    problem.first_steps.backward = next_first_step
    if problem.sums_gradients:
        parts = synchronised.equal_shares(parts)
    problem.stats.drift = _drift(distances, problem.is_shared) if distances else 0.0
    if not problem.stats.drift <= MAX_DRIFT:
        _warn_of_drift()
    left = iter(parts)
    grads = tuple(_from_part(next(left), like) if like.numel() else torch.zeros_like(like) for like in inputs)
    return adjoint + grad_ys[0], grad_ts, grads


def _require_same_slope(problem: BackwardProblem) -> None:
    """Raises ValueError for a vector field that is another one by now, in any process; one counted evaluation."""
    last = problem.vector_field.last
    assert last is not None

    def again() -> Tensor:
        problem.stats.nfe += 1
        slope: Tensor = last.evaluate(last.t, last.y)
        return slope

    is_same = is_repeatable(last.dy, again, problem.precision)
    if problem.is_shared:  # or the others would wait for this one
        is_same = synchronised.all_agree(is_same, last.dy.device)
    if not is_same:
        refuse_changed(float(last.t.reshape(-1)[0]))


def _drift(distances: Sequence[Tensor], is_shared: bool) -> float:
    """The largest |y_back - y| / |y|; `distances` has y_back - y and y in turn, for each output time."""
    squares = torch.stack([torch.linalg.vector_norm(part).double().square() for part in distances])
    if is_shared:
        (squares,) = synchronised.summed((squares,))
    norms = squares.sqrt().view(-1, 2)
    return float((norms[:, 0] / torch.where(norms[:, 1] == 0, 1, norms[:, 1])).max())


@cache
def _warn_of_drift() -> None:
    """Once."""
    log.warning(
        "the backward solve of the adjoint ends more than %.0f %% away from the states of the forward solve "
        '(backward_stats.drift), so its gradient may be far off: take gradient="checkpoint", a smaller rtol for the '
        "adjoint, or more output times",
        100 * MAX_DRIFT,
    )


def _as_part(grad: Tensor, y: Tensor) -> Tensor:
    """A gradient as a part of a state, which is real and has the dtype of `y`."""
    return (torch.view_as_real(grad) if grad.is_complex() else grad).to(y)


def _from_part(part: Tensor, like: Tensor) -> Tensor:
    return (torch.view_as_complex(part.clone()) if like.is_complex() else part).to(like)


def _times_slope(problem: BackwardProblem, a: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """A f(t, y), one counted evaluation; of each sample, if each has its time."""
    problem.stats.nfe += 1
    product: Tensor = a * problem.vector_field(as_column(t.to(y), y), y)
    return product.reshape(*t.shape, -1).sum(-1)


def _lengths(problem: BackwardProblem, ts: Tensor) -> Tensor:
    """From each time to the next the longest way of a sample, of all processes if they share their steps."""
    lengths = ts.detach().diff(dim=1).abs().amax(0).double()
    if not problem.is_shared:
        return lengths
    return torch.from_numpy(synchronised.largest_of(lengths.cpu().numpy(), ts.device)).to(ts.device)


def _in_common_time(augmented: Augmented, ends: Tensor, length: Tensor, y: Tensor) -> tuple[Augmented, Tensor]:
    """d/ds in place of d/dt, and the ends of s: along `length`, each sample goes from end to end, `(batch, 2)`."""
    start, rate = (as_column(t.to(y.device), y) for t in (ends[:, 0], (ends[:, 1] - ends[:, 0]) / length))
    interval = torch.stack([torch.zeros_like(length), length])
    return lambda s, state: augmented((start + s * rate).to(y.dtype), state, rate.to(y.dtype)), interval


def _augmented_vector_field(vector_field: WatchedVectorField) -> Augmented:
    """`rate` d/dt of (y, a, dL/dtheta): one evaluation and one vector-Jacobian product."""
    leaves = vector_field.leaves
    with_numbers = [leaf for leaf in leaves if leaf.numel()]
    known = KnownInputs(leaves, vector_field.replaced, vector_field.side)

    def augmented(t: Tensor, state: tuple[Tensor, ...], rate: float | Tensor = 1.0) -> tuple[Tensor, ...]:
        y, adjoint = state[0], state[1]
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            dy = vector_field(t, y).to(y.dtype)
            wanted = (y, *with_numbers)
            if not dy.requires_grad:  # a constant
                vjps = tuple(torch.zeros_like(tensor) for tensor in wanted)
            else:
                known.check(get_gradient_edge(dy).node, y, t)
                vjps = torch.autograd.grad(dy, wanted, -rate * adjoint, allow_unused=True, materialize_grads=True)
        return (rate * dy.detach(), *(_as_part(vjp, y) for vjp in vjps))

    return augmented


def _with_summed_gradients(augmented: Augmented) -> Augmented:
    """With the parameter gradients of all processes, whose error is that of their sum."""

    def summed(*args: Any) -> tuple[Tensor, ...]:
        dy, da, *vjps = augmented(*args)
        return (dy, da, *synchronised.summed(tuple(vjps)))

    return summed
