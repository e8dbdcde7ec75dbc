"""Optimise, then discretise: the gradient is the solution of a second ODE, solved backwards in time.

With a(t) = dL/dy(t), from Chen et al. 2018, equations 4 and 5 and appendix B:

    da/dt = -a df/dy,    dL/dtheta = -int_{t1}^{t0} a df/dtheta dt,    dL/dt1 = a f at t1,    dL/dt0 = -a f at t0.

The state is solved backwards beside it, so memory does not grow with the evaluations; it is reset to the stored
value at each output time, where a jumps by the gradient that the loss hands over there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from node_cli.ode.base import Norm, Solver
from node_cli.ode.solution import Solution, SolveStats


@dataclass(frozen=True, kw_only=True)
class Adjoint:
    """The adjoint method. Its error is that of two solves: not exactly the gradient of the loss that was computed.

    `rtol` and `atol` are those of the backward solve (None: the solver's). `norm` says what its step control sees:
    `full` state, adjoint and parameter gradients; `semi` leaves the parameter gradients out, which feed back into
    nothing (Kidger et al. 2021, "Hey, that's not an ODE").
    """

    rtol: float | None
    atol: float | None
    norm: str

    def __post_init__(self) -> None:
        for key in ("rtol", "atol"):
            value = vars(self)[key]
            if value is not None and not value > 0:
                raise ValueError(f"{key} must be positive or null (the solver's), got {value}")
        if self.norm not in _NORMS:
            raise ValueError(f"norm must be one of {', '.join(_NORMS)}, got {self.norm}")

    def check(self, solver: Solver) -> None:
        """Raises ValueError for settings that the solver would ignore or cannot take."""
        set_keys = [key for key in ("rtol", "atol") if vars(self)[key] is not None]
        if set_keys and not solver.has_tolerances:
            raise ValueError(
                f"gradient.{set_keys[0]} has no effect on a solver of fixed step size: "
                "set it to null, or take solver=dopri5"
            )
        if self.norm != "full" and not solver.has_norm:
            raise ValueError(
                f"gradient.norm={self.norm} has no effect on this solver, which has an error norm of its own or none: "
                "take gradient.norm=full, or solver=dopri5"
            )
        solver.with_tolerances(self.rtol, self.atol)

    def solve(self, solver: Solver, vector_field: nn.Module, y0: Tensor, ts: Tensor) -> Solution[Tensor]:
        """See `Gradient.solve`."""
        parameters = tuple(p for p in vector_field.parameters() if p.requires_grad)
        stats, backward_stats = SolveStats(), SolveStats()
        backward_solver = solver.with_tolerances(self.rtol, self.atol)
        job = _Job(solver, backward_solver, _NORMS[self.norm], vector_field, stats, backward_stats)
        ys = _AdjointSolve.apply(job, y0, ts, *parameters)
        return Solution(ys, stats, backward_stats)


@dataclass(frozen=True)
class _Job:
    solver: Solver
    backward_solver: Solver
    norm: Norm
    vector_field: nn.Module
    stats: SolveStats
    backward_stats: SolveStats


class _AdjointSolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: _Job, y0: Tensor, ts: Tensor, *parameters: Tensor) -> Tensor:
        ctx.job = job
        ctx.autocast = {
            "device_type": y0.device.type,
            "dtype": torch.get_autocast_dtype(y0.device.type),
            "enabled": torch.is_autocast_enabled(y0.device.type),
            "cache_enabled": False,  # a weight that was cast without a graph must not be met again where there is one
        }
        with torch.autocast(**ctx.autocast):
            solution = job.solver.integrate(job.vector_field, y0, ts)
        vars(job.stats).update(vars(solution.stats))
        ctx.save_for_backward(ts, solution.ys, *parameters)
        return solution.ys

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ys: Tensor) -> tuple[Tensor | None, ...]:
        job: _Job = ctx.job
        ts, ys, *parameters = ctx.saved_tensors
        augmented = _augmented_vector_field(job.vector_field, tuple(parameters))
        grads = tuple(torch.zeros_like(p) for p in parameters)
        grad_ts = torch.zeros_like(ts) if ctx.needs_input_grad[2] else None
        adjoint = torch.zeros_like(ys[0])
        with torch.autocast(**ctx.autocast):
            for i in range(len(ts) - 1, 0, -1):
                if grad_ts is not None:
                    grad_ts[i] = _times_slope(job, grad_ys[i], ts[i], ys[i])
                state = (ys[i], adjoint + grad_ys[i], *grads)
                interval = torch.stack([ts[i], ts[i - 1]])
                solution = job.backward_solver.integrate(augmented, state, interval, job.norm)
                _add_stats(job.backward_stats, solution.stats)
                _, adjoint, *rest = (y[-1] for y in solution.ys)
                grads = tuple(rest)
            if grad_ts is not None:
                grad_ts[0] = -_times_slope(job, adjoint, ts[0], ys[0])
        return None, adjoint + grad_ys[0], grad_ts, *grads


def _times_slope(job: _Job, a: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """A f(t, y), one counted evaluation."""
    job.backward_stats.nfe += 1
    product: Tensor = a * job.vector_field(t.to(y.dtype), y)
    return product.sum()


def _augmented_vector_field(
    vector_field: nn.Module, parameters: tuple[Tensor, ...]
) -> Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """d/dt of (y, a, dL/dtheta): one evaluation and one vector-Jacobian product."""

    def augmented(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        y, adjoint = state[0], state[1]
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            dy = vector_field(t, y).to(y.dtype)
            vjps = torch.autograd.grad(dy, (y, *parameters), -adjoint, allow_unused=True, materialize_grads=True)
        return (dy.detach(), *vjps)

    return augmented


def _add_stats(total: SolveStats, part: SolveStats) -> None:
    total.nfe += part.nfe
    total.num_accepted += part.num_accepted
    total.num_rejected += part.num_rejected
    total.step_sizes += part.step_sizes


def _rms(y: Tensor) -> Tensor:
    return y.pow(2).mean().sqrt()


def _full_norm(state: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([_rms(part) for part in state]).max()


def _semi_norm(state: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([_rms(part) for part in state[:2]]).max()


_NORMS: dict[str, Norm] = {"full": _full_norm, "semi": _semi_norm}
