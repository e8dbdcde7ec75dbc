"""Initial value problems in float64: some with exact solutions, some that are known to be hard."""

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
SWING = Problem(  # without poles, not even complex ones: an error follows its order from large steps on
    vector_field=lambda t, y: torch.cos(t) * y,
    exact=lambda ts: _starts * torch.exp(torch.sin(ts[:, None])),
)
PROBLEMS = {"logistic": LOGISTIC, "runge": RUNGE}


@dataclass(frozen=True)
class HardProblem:
    """Without an exact solution; `growth` is how much of an error of one step is left at `t1`, in the worst case."""

    vector_field: Callable[[Tensor, Tensor], Tensor]  # of states `(..., n)`
    y0: list[float]
    t1: float
    growth: float


def _van_der_pol(t: Tensor, y: Tensor) -> Tensor:
    x, v = y.unbind(-1)
    return torch.stack([v, 2 * (1 - x**2) * v - x], -1)


def _lorenz(t: Tensor, y: Tensor) -> Tensor:
    x, y, z = y.unbind(-1)
    return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)


def _brusselator(t: Tensor, y: Tensor) -> Tensor:
    x, y = y.unbind(-1)
    return torch.stack([1 + x**2 * y - 4 * x, 3 * x - x**2 * y], -1)


def _three_bodies(t: Tensor, y: Tensor) -> Tensor:
    """Three equal masses in a plane: their positions, then their velocities."""
    positions = y[..., :6].unflatten(-1, (3, 2))
    apart = positions[..., None, :, :] - positions[..., :, None, :]
    distance = ((apart**2).sum(-1, keepdim=True) + torch.eye(3, dtype=y.dtype)[..., None]).sqrt()
    return torch.cat([y[..., 6:], (apart / distance**3).sum(-2).flatten(-2)], -1)


HARD_PROBLEMS = {
    "van der Pol": HardProblem(_van_der_pol, [2.0, 0.0], t1=6.0, growth=10),
    "Lorenz": HardProblem(_lorenz, [1.0, 1.0, 1.0], t1=1.0, growth=100),
    "Brusselator": HardProblem(_brusselator, [1.5, 3.0], t1=6.0, growth=10),
    "figure eight": HardProblem(  # Chenciner and Montgomery 2000
        _three_bodies,
        [
            *(0.97000436, -0.24308753, -0.97000436, 0.24308753, 0.0, 0.0),
            *(0.466203685, 0.43236573, 0.466203685, 0.43236573, -0.93240737, -0.86473146),
        ],
        t1=2.0,
        growth=30,
    ),
}


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
