"""The small problems: what is solved, from where, and the loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine.contender import Outcome
from benchmarks.engine.peers import Solve, torchdiffeq_solve
from node_cli.models.series.parts.networks import Hidden, network
from node_cli.ode import odeint

TOLERANCES = {"spiral": 1e-5, "lotka_volterra": 1e-4, "ffjord": 1e-5, "cnf": 1e-5}  # rtol = atol
NUM_BATCHES = 4  # a step size that is carried over comes from another batch, as in training
Loss = Callable[[Any, Any], Any]  # states at the output times, target; of tensors and of jax arrays alike


@dataclass(frozen=True)
class Problem:
    """A vector field with a multilayer perceptron `net`; a start and a target for each batch; times, loss."""

    name: str
    field: nn.Module
    starts: Tensor
    ts: Tensor
    targets: Tensor
    loss: Loss

    @property
    def tolerance(self) -> float:
        """Relative and absolute."""
        return TOLERANCES[self.name]

    @property
    def device(self) -> torch.device:
        """Where it is solved."""
        return self.starts.device

    def to(self, device: str) -> Problem:
        """The same on a device; the field itself is moved."""
        starts, ts, targets = (x.to(device) for x in (self.starts, self.ts, self.targets))
        return Problem(self.name, self.field.to(device), starts, ts, targets, self.loss)

    @cached_property
    def parameters(self) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
        """Their names, and themselves."""
        names, parameters = zip(*self.field.named_parameters(), strict=True)
        return names, parameters

    def step(self, solve: Solve, n: int) -> Outcome:
        """States of a batch, and the gradients of its loss."""
        ys = solve(self.starts[n % NUM_BATCHES], self.ts)
        names, parameters = self.parameters
        grads = torch.autograd.grad(self.loss(ys, self.targets[n % NUM_BATCHES]), parameters)
        return ys.detach(), dict(zip(names, grads, strict=True))

    def reference(self) -> tuple[Tensor, dict[str, Tensor]]:
        """In float64, by torchdiffeq: not by the code that is judged."""
        field = copy.deepcopy(self.field).double()
        starts, ts, targets = (x.double() for x in (self.starts, self.ts, self.targets))
        exact = Problem(self.name, field, starts, ts, targets, self.loss)
        return exact.step(torchdiffeq_solve("direct")(field, 1e-9), 0)


class SpiralField(nn.Module):
    """The network of torchdiffeq's `examples/ode_demo.py`: a multilayer perceptron of y**3."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))
        for layer in (self.net[0], self.net[2]):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        return self.net(y**3)


class SeriesField(nn.Module):
    """The network of `model=neural_ode`: two layers of 64."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network(2, 2, Hidden(64, 2, "tanh"))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        return self.net(y)


class FlowField(nn.Module):
    """A flow of points and of the logarithm of their density, state `(batch, 3)`, by a network of point and time.

    The trace of its Jacobian is exact: the derivative along each axis goes through the layers beside the value.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = network(3, 2, Hidden(64, 2, "tanh"))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The velocity and minus the divergence."""
        first, _, second, _, last = self.net
        value = torch.tanh(first(torch.cat([y[:, :2], t.to(y.dtype).expand(len(y), 1)], 1)))
        along = (1 - value**2)[:, None] * first.weight[:, :2].t()  # (batch, axis, width)
        value = torch.tanh(second(value))
        along = (1 - value**2)[:, None] * (along @ second.weight.t())
        divergence = (along * last.weight).sum((1, 2))
        return torch.cat([last(value), -divergence[:, None]], 1)


class AutogradFlowField(nn.Module):
    """The same with the trace by autograd, a backward pass for each axis, as in torchdiffeq's `examples/cnf.py`."""

    def __init__(self, field: FlowField) -> None:
        super().__init__()
        self.net = field.net

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The velocity and minus the divergence."""
        with torch.enable_grad():
            point = y[:, :2].requires_grad_()
            velocity = self.net(torch.cat([point, t.to(y.dtype).expand(len(y), 1)], 1))
            rows = (torch.autograd.grad(velocity[:, i].sum(), point, create_graph=True)[0][:, i] for i in range(2))
            return torch.cat([velocity, -sum(rows)[:, None]], 1)


def spiral(batch: int) -> Problem:
    """Pieces of the true spiral of `examples/ode_demo.py`, from points that are drawn along it."""
    torch.manual_seed(0)
    ts = torch.linspace(0, 25, 1000, dtype=torch.float64)
    matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)
    truth = odeint(lambda t, y: y**3 @ matrix, torch.tensor([[2.0, 0.0]], dtype=torch.float64), ts)[:, 0].float()
    begins = torch.stack([torch.randperm(990)[:batch] for _ in range(NUM_BATCHES)])
    targets = torch.stack([truth[begins + i] for i in range(10)], 1)
    return Problem("spiral", SpiralField(), targets[:, 0], ts[:10].float(), targets, mean_absolute)


def lotka_volterra(batch: int) -> Problem:
    """Prey and predator through about two periods; the network has learned their slopes roughly."""
    torch.manual_seed(0)

    def slope(y: Tensor) -> Tensor:
        x, z = y.unbind(-1)
        return torch.stack([1.5 * x - x * z, x * z - 3 * z], -1)

    ts = torch.linspace(0, 7, 50)
    starts = 2 ** (2 * torch.rand(NUM_BATCHES, batch, 2) - 1)
    truth = odeint(lambda t, y: slope(y), starts.double(), ts.double()).transpose(0, 1)
    field, seen = SeriesField(), truth[0].reshape(-1, 2).float()
    optimizer = torch.optim.Adam(field.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        (field(ts[0], seen) - slope(seen)).square().mean().backward()
        optimizer.step()
    return Problem("lotka_volterra", field, starts, ts, truth.float(), mean_square)


def ffjord(batch: int) -> Problem:
    """Points on two noisy circles, taken to a normal distribution: negative log-likelihood."""
    torch.manual_seed(0)
    angle = 2 * math.pi * torch.rand(NUM_BATCHES, batch)
    radius = 1 + torch.randint(0, 2, angle.shape)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    points += 0.1 * torch.randn_like(points)
    starts = torch.cat([points, torch.zeros(NUM_BATCHES, batch, 1)], -1)
    no_targets = torch.zeros(NUM_BATCHES)
    return Problem("ffjord", FlowField(), starts, torch.tensor([0.0, 1.0]), no_targets, negative_log_likelihood)


def mean_absolute(ys: Any, target: Any) -> Any:
    """Loss of the demo."""
    return abs(ys - target).mean()


def mean_square(ys: Any, target: Any) -> Any:
    """Loss of a trajectory."""
    return ((ys - target) ** 2).mean()


def negative_log_likelihood(ys: Any, target: Any) -> Any:
    """Of the points where the flow started, in nats; the density of where it ended is a standard normal."""
    log_base = -(ys[-1, :, :2] ** 2).sum(-1) / 2 - math.log(2 * math.pi)
    return -(log_base - ys[-1, :, 2]).mean()
