"""Initial value problems with exact solutions, in float64."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Problem:
    vector_field: Callable[[Tensor, Tensor], Tensor]
    exact: Callable[[Tensor], Tensor]  # of times `(n,)`, gives `(n, batch)`

    def y0(self, ts: Tensor) -> Tensor:
        return self.exact(ts)[0]

    def error(self, solution, ts: Tensor) -> float:
        return (solution.ys - self.exact(ts)).abs().max().item()


_starts = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)

LOGISTIC = Problem(
    vector_field=lambda t, y: y * (1 - y),
    exact=lambda ts: 1 / (1 + (1 / _starts - 1) * torch.exp(-ts[:, None])),
)
RUNGE = Problem(  # depends on time: y = 1 / (c + t^2)
    vector_field=lambda t, y: -2 * t * y**2,
    exact=lambda ts: 1 / (1 / _starts + ts[:, None] ** 2),
)
PROBLEMS = {"logistic": LOGISTIC, "runge": RUNGE}


class Growth(nn.Module):
    """dz/dt = alpha z, with L = (z(t1) - 1)^2 / 2: every gradient has a closed form."""

    def __init__(self, alpha: float):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(alpha, dtype=torch.float64))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.alpha * z

    @staticmethod
    def loss(z1: Tensor) -> Tensor:
        return 0.5 * ((z1 - 1) ** 2).sum()

    def gradients(self, z0: float, t0: float, t1: float) -> dict[str, float]:
        alpha = self.alpha.item()
        z1 = z0 * math.exp(alpha * (t1 - t0))
        outer = z1 - 1
        return {
            "alpha": outer * z1 * (t1 - t0),
            "z0": outer * z1 / z0,
            "t0": -outer * alpha * z1,
            "t1": outer * alpha * z1,
        }


class Wave(nn.Module):
    """A small network that depends on time; counts how often it is evaluated."""

    def __init__(self, width: int = 3, dtype: torch.dtype = torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(width, 8, dtype=dtype)
        self.out = nn.Linear(8, width, dtype=dtype)
        self.calls = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self.out(torch.tanh(self.hidden(y) + torch.sin(3 * t)))


def times(*values: float, requires_grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=requires_grad)
