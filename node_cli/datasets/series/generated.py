"""The systems that there are datasets of."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

from node_cli.datasets.series.systems import System, system_dataset

SPIRAL = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)
LOTKA_VOLTERRA = (1.5, 1.0, 3.0, 1.0)  # alpha, beta, gamma, delta
LORENZ = (10.0, 28.0, 8 / 3)  # sigma, rho, beta
MU = 1.0  # of van der Pol's oscillator


@system_dataset
def spiral() -> System:
    """dy/dt = y**3 A, an inward spiral: from (2, 0), and where there are several from elsewhere at that radius.

    Source: torchdiffeq, examples/ode_demo.py.
    """

    def starts(number: int, generator: Generator) -> Tensor:
        angles = 2 * math.pi * _uniform((number,), 0, 1, generator)
        angles[0] = 0
        return 2 * torch.stack([angles.cos(), angles.sin()], dim=1)

    return System(("x", "y"), lambda y: y**3 @ SPIRAL, starts, max_step=0.03)


@system_dataset
def lotka_volterra() -> System:
    """Prey and predator: dx/dt = 1.5 x - x y, dy/dt = x y - 3 y, from (1, 1), others within a factor of 2 of it.

    The noise is that of the logarithm.

    Source: Rackauckas et al., DiffEqFlux.jl, 2019.
    """
    alpha, beta, gamma, delta = LOTKA_VOLTERRA

    def slope(state: Tensor) -> Tensor:
        x, y = state.unbind(1)
        return torch.stack([alpha * x - beta * x * y, delta * x * y - gamma * y], dim=1)

    def starts(number: int, generator: Generator) -> Tensor:
        factors = 2.0 ** _uniform((number, 2), -1, 1, generator)
        factors[0] = 1
        return factors

    return System(("prey", "predator"), slope, starts, max_step=0.05, is_positive=True)


@system_dataset
def pendulum() -> System:
    """A pendulum of the energy 3 (1 - cos q) + p**2, from 1.3 to 2.3 away from rest.

    Source: Greydanus, Dzamba, Yosinski, *Hamiltonian Neural Networks*, NeurIPS 2019.
    """

    def slope(state: Tensor) -> Tensor:
        q, p = state.unbind(1)
        return torch.stack([2 * p, -3 * q.sin()], dim=1)

    return System(("q", "p"), slope, lambda number, generator: _ring(number, 1.3, 2.3, generator), max_step=0.1)


@system_dataset
def spring() -> System:
    """A mass on a spring of the energy q**2 + p**2, from .1 to 1 away from rest.

    Source: Greydanus, Dzamba, Yosinski, *Hamiltonian Neural Networks*, NeurIPS 2019.
    """
    return System(
        ("q", "p"),
        lambda state: 2 * torch.stack([state[:, 1], -state[:, 0]], dim=1),
        lambda number, generator: _ring(number, 0.1, 1.0, generator),
        max_step=0.1,
    )


@system_dataset
def two_body() -> System:
    """Two bodies of mass 1 on nearly circular orbits: positions `x1, y1, x2, y2`, then momenta.

    The energy is half the square of all momenta less the inverse of the distance.

    Source: Greydanus, Dzamba, Yosinski, *Hamiltonian Neural Networks*, NeurIPS 2019.
    """

    def slope(state: Tensor) -> Tensor:
        first, second, momenta = state[:, :2], state[:, 2:4], state[:, 4:]
        apart = second - first
        force = apart / apart.norm(dim=1, keepdim=True) ** 3
        return torch.cat([momenta, force, -force], dim=1)

    def starts(number: int, generator: Generator) -> Tensor:
        place = _uniform((number, 2), 0.5, 1.5, generator)
        speed = 1 + 0.05 * torch.randn(number, 1, generator=generator, dtype=torch.float64)
        across = torch.stack([-place[:, 1], place[:, 0]], dim=1)
        momentum = speed * across / (2 * place.norm(dim=1, keepdim=True) ** 1.5)
        return torch.cat([place, -place, momentum, -momentum], dim=1)

    names = tuple(f"{kind}{axis}{body}" for kind in ("", "p") for body in (1, 2) for axis in "xy")
    return System(names, slope, starts, max_step=0.1)


@system_dataset
def lorenz() -> System:
    """Lorenz's chaotic convection: sigma = 10, rho = 28, beta = 8/3.

    Source: Lorenz, *Deterministic Nonperiodic Flow*, J. Atmospheric Sciences 1963.
    """
    sigma, rho, beta = LORENZ

    def slope(state: Tensor) -> Tensor:
        x, y, z = state.unbind(1)
        return torch.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z], dim=1)

    def starts(number: int, generator: Generator) -> Tensor:
        middle = torch.tensor([-6.0, -6.0, 24.0], dtype=torch.float64)  # a point that the attractor comes close to
        return middle + torch.randn(number, 3, generator=generator, dtype=torch.float64)

    return System(("x", "y", "z"), slope, starts, max_step=0.025)


@system_dataset
def van_der_pol() -> System:
    """Van der Pol's oscillator: dx/dt = v, dv/dt = (1 - x**2) v - x, up to 2 away from rest in each direction.

    Source: van der Pol, *On Relaxation-Oscillations*, Philosophical Magazine 1926.
    """

    def slope(state: Tensor) -> Tensor:
        x, v = state.unbind(1)
        return torch.stack([v, MU * (1 - x**2) * v - x], dim=1)

    return System(("x", "v"), slope, lambda number, generator: _uniform((number, 2), -2, 2, generator), max_step=0.05)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def _ring(number: int, low: float, high: float, generator: Generator) -> Tensor:
    """Points in directions of a square's points, `low` to `high` away from 0."""
    points = _uniform((number, 2), -1, 1, generator)
    return normalize(points) * _uniform((number, 1), low, high, generator)
