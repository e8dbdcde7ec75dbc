"""The solves of other libraries, dopri5 with one step size for the whole batch: states at `ts`, differentiable."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

Solve = Callable[[Tensor, Tensor], Any]  # y0, ts -> states, shape (len(ts), *y0.shape)
Build = Callable[[nn.Module, float], Solve]  # vector field, rtol = atol -> what is timed


def is_installed(name: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(name) is not None


def has_diffrax(device: str) -> bool:
    """Whether diffrax is installed and runs on such a device."""
    if not is_installed("diffrax"):
        return False
    if device == "cpu":
        return True
    import jax

    return bool(jax.default_backend() == "gpu")


def torchdiffeq_solve(gradient: str) -> Build:
    """`odeint` or `odeint_adjoint`."""
    odeint = {"direct": torchdiffeq.odeint, "adjoint": torchdiffeq.odeint_adjoint}[gradient]

    def build(field: nn.Module, tolerance: float) -> Solve:
        return lambda y0, ts: odeint(field, y0, ts, rtol=tolerance, atol=tolerance, method="dopri5")

    return build


def torchode_solve(gradient: str) -> Build:
    """All samples in one row: torchode steps rows apart, and here one step size is to serve the whole batch."""
    import torchode

    class Flat(nn.Module):
        def __init__(self, field: nn.Module) -> None:
            super().__init__()
            self.field = field
            self.shape = torch.Size()

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.field(t[0], y.view(self.shape)).reshape(1, -1)

    def build(field: nn.Module, tolerance: float) -> Solve:
        flat = Flat(field)
        term = torchode.ODETerm(flat)
        parts = (torchode.Dopri5(term=term), torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term))
        joint = torchode.JointBacksolveAdjoint
        solver = (torchode.AutoDiffAdjoint(*parts) if gradient == "direct" else joint(term, *parts)).to(
            next(field.parameters()).device
        )

        def solve(y0: Tensor, ts: Tensor) -> Tensor:
            flat.shape = y0.shape
            problem = torchode.InitialValueProblem(y0=y0.reshape(1, -1), t_eval=ts[None])
            return solver.solve(problem).ys.view(len(ts), *y0.shape)

        return solve

    return build
