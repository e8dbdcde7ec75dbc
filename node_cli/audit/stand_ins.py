"""Gradient methods that replace a block's own while its true gradient is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from node_cli.audit.fixed_steps import FixedSteps
from node_cli.ode.base import Solver, VectorField
from node_cli.ode.functional import solve
from node_cli.ode.gradients import Gradient
from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.solution import FirstSteps, Solution, SolveStats


class _OfAnySolver:
    def check(self, solver: Solver) -> None:
        """Goes with any solver, or with any that autograd can look through."""


class Recorder(_OfAnySolver):
    """Solves without a graph and records the steps of every solve in `solves`."""

    def __init__(self) -> None:
        self.solves: list[FixedSteps] = []

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        """The solve as `solver` makes it."""
        self.solves.append(FixedSteps(solver, vector_field, y0, ts))
        return self.solves[-1].solution


class Replayer(_OfAnySolver):
    """Takes the steps of recorded solves again, in order, with plain graphs."""

    def __init__(self, solves: Sequence[FixedSteps]) -> None:
        self._solves = iter(solves)

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        """The next recorded solve, from this `y0`."""
        return Solution(next(self._solves)(vector_field, y0, ts), SolveStats())


class WrongSign(_OfAnySolver):
    """The adjoint method with its classic mistake: it solves da/dt = +a df/dy."""

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        """A correct solve with a wrong gradient."""
        adjoint = Adjoint(rtol=None, atol=None, norm="full")
        return adjoint.solve(solver, lambda t, y: vector_field(t, _Flipped.apply(y)), y0, ts, first_steps)


class _Flipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        return -grad_y


class SolvedBack:
    """Solves as `gradient` does, then back again from the end; `compare` gets the states there and back.

    Both are at the same times, shape `(times, batch, ...)`: at `num_times` of them from start to end by a solver that
    interpolates, at both ends by one that steps onto its output times (more of them would be another solve).
    """

    def __init__(self, gradient: Gradient, num_times: int, compare: Callable[[Tensor, Tensor], None]) -> None:
        self._gradient = gradient
        self._num_times = num_times
        self._compare = compare

    def check(self, solver: Solver) -> None:
        """Goes with the solvers that its gradient goes with."""
        self._gradient.check(solver)

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        """The forward solve."""
        solution = self._gradient.solve(solver, vector_field, y0, ts, first_steps)
        there, times = solution.ys, ts
        if interpolates := vars(solver).get("outputs") == "interpolate":
            share = torch.linspace(0, 1, self._num_times, dtype=ts.dtype, device=ts.device)
            times = torch.lerp(ts[..., :1], ts[..., -1:], share)
            there = self._gradient.solve(solver, vector_field, y0, times, FirstSteps()).ys
        back = self._gradient.solve(solver, vector_field, there[-1], times.flip(-1), FirstSteps()).ys.flip(0)
        ends = slice(None) if interpolates else [0, -1]
        self._compare(there[ends], back[ends])
        return solution


class Tight(_OfAnySolver):
    """Solves by dopri5 at rtol = atol = `rtol`, whatever the solver; `nfe` counts the forward evaluations."""

    def __init__(self, rtol: float) -> None:
        self._rtol = rtol
        self.nfe = 0

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        """The closest to a solution of the ODE itself."""
        solution = solve(vector_field, y0, ts, rtol=self._rtol, atol=self._rtol, gradient="checkpoint")
        self.nfe += solution.stats.nfe
        return solution
