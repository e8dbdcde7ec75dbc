"""dz/dt = A z with a squared loss at some times: its solution and all gradients, in closed form and by autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_cli.audit.base import Case
from node_cli.audit.comparison import Gradients
from node_cli.ode.base import VectorField

Solve = Callable[[VectorField[Tensor], Tensor, Tensor], Tensor]  # states at times from a state, differentiably

_STENCIL = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}  # the first derivative, order 4
_STEP = 1e-3  # of the finite differences, which are then good to about 1e-12


class LinearField(nn.Module):
    """dz/dt = A z for states `(1, d)`."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """The slope of `z`."""
        return z @ self.matrix.T


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """The gradients, and z(t) and a(t), each `(d,)`; at an observation `a` has jumped already, seen from the end."""

    gradients: Gradients
    z: Callable[[float], Tensor]
    a: Callable[[float], Tensor]


@dataclass(frozen=True, eq=False)
class LinearProblem:
    """dz/dt = A z from `z0` `(d,)` at `ts[0]`, with loss `weight * sum_i |z(t_i) - targets_i|^2` over `ts[1:]`.

    `matrix` `(d, d)` is A, which is called `parameter`; `targets` `(N, d)` belong to the last N times. All is float64.
    """

    parameter: str
    matrix: Tensor
    z0: Tensor
    ts: Tensor
    targets: Tensor
    weight: float

    def z(self, t: float) -> Tensor:
        """The state at `t`: e^{A (t - t0)} z0."""
        return torch.matrix_exp(self.matrix * (t - self.ts[0])) @ self.z0

    def jumps(self) -> Tensor:
        """The partial derivatives of the loss for the z(t_i), by which a jumps, `(N, d)`."""
        return 2 * self.weight * (torch.stack([self.z(t) for t in self.ts[1:].tolist()]) - self.targets)

    def closed_form(self, sign: int = 1, jumps: Tensor | None = None) -> ClosedForm:
        """With a(t) = sum over the t_i from t on of e^{sign A^T (t_i - t)} g_i.

        The true one has `sign=1` and the jumps g_i of the problem; others are what known mistakes make of it.
        """
        start, matrix, turned = self.ts[0].item(), self.matrix, sign * self.matrix.T
        observed = list(zip(self.ts[1:].tolist(), self.jumps() if jumps is None else jumps, strict=True))

        def a(t: float) -> Tensor:
            later = [(t_i, g) for t_i, g in observed if (t_i - t) * self._direction >= 0]
            return sum((torch.matrix_exp(turned * (t_i - t)) @ g for t_i, g in later), torch.zeros_like(self.z0))

        of_matrix = [product_integral(turned, torch.outer(g, self.z0), matrix.T, t_i - start) for t_i, g in observed]
        of_ts = [-a(start) @ matrix @ self.z0, *(g @ matrix @ self.z(t_i) for t_i, g in observed)]
        gradients = self.named(torch.stack(of_matrix).sum(0), a(start), torch.stack(of_ts))
        return ClosedForm(gradients, self.z, a)

    def loss(self, zs: Tensor) -> Tensor:
        """The loss of states `(n, 1, d)` at the last n times."""
        targets = self.targets[len(self.targets) - len(zs) :]
        return self.weight * ((zs[:, 0] - targets) ** 2).sum()

    def named(self, matrix: Tensor, z0: Tensor, ts: Tensor) -> Gradients:
        """Gradients by the names that tables give them."""
        of_times = {f"dL/dt{i}": t for i, t in enumerate(ts)}
        return {f"dL/d{self.parameter}": matrix, "dL/dz0": z0.reshape(-1), **of_times}

    def gradients(self, solve: Solve) -> Gradients:
        """All gradients of the loss by autograd, through `solve`; zero where autograd finds none."""
        field, z0, ts = LinearField(self.matrix), _leaf(self.z0[None]), _leaf(self.ts)
        loss = self.loss(solve(field, z0, ts)[1:])
        inputs = (field.matrix, z0, ts)
        return self.named(*torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))

    def finite_differences(self, solve: Solve) -> Gradients:
        """The same gradients by central differences of the loss."""
        parts = (self.matrix, self.z0, self.ts)
        point, sizes = torch.cat([part.flatten() for part in parts]), [part.numel() for part in parts]
        # A time moves by a share of the distance to its neighbours, so that none passes another.
        steps = torch.full_like(point, _STEP)
        steps[-len(self.ts) :] *= (self.ts[1] - self.ts[0]).abs().clamp(max=1)

        def loss_at(moved: Tensor) -> float:
            matrix, z0, ts = moved.split(sizes)
            field = LinearField(matrix.view_as(self.matrix))
            return float(self.loss(solve(field, z0[None], ts)[1:]))

        with torch.no_grad():
            moves = torch.diag(steps)
            slopes = [sum(w * loss_at(point + k * move) for k, w in _STENCIL.items()) for move in moves]
        matrix, z0, ts = (torch.tensor(slopes, dtype=point.dtype) / steps).split(sizes)
        return self.named(matrix.view_as(self.matrix), z0, ts)

    def state_at(self, case: Case, t: Tensor) -> Tensor:
        """z(t), `(1, d)`, by the solver of `case`, through the observations before."""
        if t == self.ts[0]:
            return self.z0[None]
        before = self.ts[(t - self.ts) * self._direction > 0]
        return case.solve(LinearField(self.matrix), self.z0[None], torch.cat([before, t[None]])).ys[-1].detach()

    def adjoint_at(self, case: Case, z: Tensor, t: Tensor, *, after_jump: bool = False) -> Tensor:
        """a(t) = dL/dz(t), `(1, d)`, by the gradient of `case`; at an observation with its jump, or without."""
        z = _leaf(z)
        ts = torch.cat([t[None], self.ts[(self.ts - t) * self._direction > 0]])
        zs = case.solve(LinearField(self.matrix), z, ts).ys if len(ts) > 1 else z[None]
        has_jump = bool((self.ts[1:] == t).any()) and not after_jump
        loss = self.loss(zs[0 if has_jump else 1 :])
        return torch.autograd.grad(loss, z, allow_unused=True, materialize_grads=True)[0]

    @property
    def _direction(self) -> Tensor:
        return torch.sign(self.ts[-1] - self.ts[0])


def product_integral(left: Tensor, middle: Tensor, right: Tensor, span: float) -> Tensor:
    """The integral of e^{left (span - s)} middle e^{right s} over s from 0 to `span`.

    With left = right, the Frechet derivative of the matrix exponential at `left * span` in direction `middle * span`.
    Source: Van Loan 1978, "Computing integrals involving the matrix exponential", IEEE Trans. Automat. Control 23(3).
    """
    size = len(middle)
    block = torch.cat([torch.cat([left, middle], 1), torch.cat([torch.zeros_like(left), right], 1)])
    return torch.matrix_exp(block * span)[:size, size:]


def _leaf(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_()
