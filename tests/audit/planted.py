"""The adjoint method with one mistake each, as gradient methods."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from node_cli.ode.base import Solver, VectorField
from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.solution import FirstSteps, Solution

_ADJOINT = Adjoint(rtol=None, atol=None, norm="full")


class _Flipped(torch.autograd.Function):
    """The same value, with a gradient of the other sign."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


@dataclass(frozen=True)
class Planted:
    """The true adjoint method."""

    def check(self, solver: Solver) -> None:
        _ADJOINT.check(solver)

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        return _ADJOINT.solve(solver, vector_field, y0, ts, first_steps)


@dataclass(frozen=True)
class WrongSign(Planted):
    """Solves da/dt = +a df/dz."""

    def solve(self, solver, vector_field, y0, ts, first_steps):
        return super().solve(solver, lambda t, y: vector_field(t, _Flipped.apply(y)), y0, ts, first_steps)


@dataclass(frozen=True)
class DroppedTimes(Planted):
    """No time has a gradient."""

    def solve(self, solver, vector_field, y0, ts, first_steps):
        return super().solve(solver, vector_field, y0, ts.detach(), first_steps)


@dataclass(frozen=True)
class ForgottenParameter(Planted):
    """The first parameter of the vector field, which is a module, has no gradient."""

    def solve(self, solver, vector_field, y0, ts, first_steps):
        assert isinstance(vector_field, nn.Module)
        name, parameter = next(vector_field.named_parameters())

        def without(t: Tensor, y: Tensor) -> Tensor:
            return functional_call(vector_field, {name: parameter.detach()}, (t, y))

        return super().solve(solver, without, y0, ts, first_steps)


def _altered(solution: Solution[Tensor], alter: Callable[[Tensor], Tensor]) -> Solution[Tensor]:
    """With another gradient handed over by the loss."""
    if solution.ys.requires_grad:
        solution.ys.register_hook(alter)
    return solution


def _without(grad_ys: Tensor, places: slice) -> Tensor:
    kept = grad_ys.clone()
    kept[places] = 0
    return kept


@dataclass(frozen=True)
class MissingJump(Planted):
    """Does not jump at the output time in the middle, if there is one between the first and the last."""

    def solve(self, solver, vector_field, y0, ts, first_steps):
        middle = len(ts) // 2
        places = slice(middle, middle + 1) if len(ts) > 2 else slice(0)
        solution = super().solve(solver, vector_field, y0, ts, first_steps)
        return _altered(solution, lambda grad_ys: _without(grad_ys, places))


@dataclass(frozen=True)
class OnlyLastJump(Planted):
    """Does not jump at any output time between the first and the last."""

    def solve(self, solver, vector_field, y0, ts, first_steps):
        solution = super().solve(solver, vector_field, y0, ts, first_steps)
        return _altered(solution, lambda grad_ys: _without(grad_ys, slice(1, -1)))


@dataclass(frozen=True)
class Negated(Planted):
    """Every gradient has the wrong sign."""

    def solve(self, solver, vector_field, y0, ts, first_steps):
        return _altered(super().solve(solver, vector_field, y0, ts, first_steps), torch.neg)


@dataclass(frozen=True)
class OnePercentMore(Planted):
    """Every gradient is a little too large, which is no mistake that has a name."""

    def solve(self, solver, vector_field, y0, ts, first_steps):
        return _altered(super().solve(solver, vector_field, y0, ts, first_steps), lambda grad_ys: 1.01 * grad_ys)
