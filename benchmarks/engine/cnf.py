"""The likelihood step of a continuous normalizing flow with the network of torchdiffeq's `examples/cnf.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.engine.contender import Entry, Mode
from benchmarks.engine.peers import torchdiffeq_solve
from benchmarks.engine.problems import NUM_BATCHES, Problem, negative_log_likelihood
from benchmarks.engine.solves import GRADIENTS, ours, peer
from node_cli.models.flows.along import Along, Conditioned

HIDDEN, WIDTH, DIM = 32, 64, 2
NETWORK = "its example's"
# Its example backpropagates through the solve, or, with --adjoint, as FFJORD does, solves backwards.
PEERS = {g: Mode("torchdiffeq", "adjoint" if g == "adjoint" else "direct", network=NETWORK) for g in GRADIENTS}


class HyperField(nn.Module):
    """Units `u tanh(w y + b)`, whose weights are those that a small network makes of the time, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(1, HIDDEN),
            nn.Tanh(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.Tanh(),
            nn.Linear(HIDDEN, WIDTH * (3 * DIM + 1)),
        )

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt of points `(n, 2)` at 0-dim `t`."""
        made = self.layers(t.to(y.dtype).reshape(1))
        w, u, gate, b = made.split([WIDTH * DIM] * 3 + [WIDTH])
        out = (u * gate.sigmoid()).view(WIDTH, DIM) / WIDTH
        return torch.tanh(y @ w.view(WIDTH, DIM).T + b) @ out


class ExampleField(nn.Module):
    """The same as the example computes it: a batch of one-unit products, and a backward pass for each axis."""

    def __init__(self, field: HyperField) -> None:
        super().__init__()
        self.layers = field.layers

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """The velocity and minus the trace of its Jacobian, of a state `(n, 3)`."""
        with torch.enable_grad():
            y = state[:, :DIM].requires_grad_()
            made = self.layers(t.to(y.dtype).reshape(1, 1)).reshape(-1)
            size = WIDTH * DIM
            w = made[:size].reshape(WIDTH, DIM, 1)
            u = made[size : 2 * size].reshape(WIDTH, 1, DIM)
            u = u * torch.sigmoid(made[2 * size : 3 * size].reshape(WIDTH, 1, DIM))
            b = made[3 * size :].reshape(WIDTH, 1, 1)
            units = torch.tanh(torch.matmul(y.unsqueeze(0).repeat(WIDTH, 1, 1), w) + b)
            dy = torch.matmul(units, u).mean(0)
            rows = (torch.autograd.grad(dy[:, i].sum(), y, create_graph=True)[0][:, i] for i in range(DIM))
            return torch.cat([dy, -sum(rows)[:, None]], 1)


class LikelihoodField(nn.Module):
    """As `model=cnf` has it: the exact trace by vectorised products."""

    def __init__(self, field: HyperField) -> None:
        super().__init__()
        self.along = Along(Conditioned(field, None), (DIM,), None, ())

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """The velocity and minus the trace of its Jacobian, of a state `(n, 3)`."""
        slope: Tensor = self.along(t, state)
        return torch.cat([slope[:, :DIM], -slope[:, DIM:]], 1)


def cnf(batch: int) -> Problem:
    """Points on two noisy circles, solved from time 10 to the base at 0, as the example does."""
    torch.manual_seed(0)
    angle = 2 * math.pi * torch.rand(NUM_BATCHES, batch)
    radius = 1 - 0.5 * torch.randint(0, 2, angle.shape)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
    points += 0.06 * torch.randn_like(points)
    starts = torch.cat([points, torch.zeros(NUM_BATCHES, batch, 1)], -1)
    field = LikelihoodField(HyperField())
    return Problem("cnf", field, starts, torch.tensor([10.0, 0.0]), torch.zeros(NUM_BATCHES), negative_log_likelihood)


def entries(batch: int) -> Iterator[Entry]:
    """The example with both gradients, the same solver with our field, and ours in all modes."""
    problem = cnf(batch)
    example = ExampleField(problem.field.along.vector_field.vector_field)
    for gradient in ("direct", "adjoint"):
        build = torchdiffeq_solve(gradient)
        yield Mode("torchdiffeq", gradient, network=NETWORK), partial(peer, problem, build, example)
        yield Mode("torchdiffeq", gradient), partial(peer, problem, build)
    yield from ours(problem)
