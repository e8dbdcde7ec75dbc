"""A batch of series with output times of their own: one solve of all, each solved alone, and the union of all times.

The series begin at the same time, as a union of times needs it, and the longest is twice as long as the shortest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine.contender import Contender, Entry, Mode, Outcome
from benchmarks.engine.peers import torchdiffeq_solve
from benchmarks.engine.problems import NUM_BATCHES
from benchmarks.engine.solves import GRADIENTS
from node_cli.ode import Solution, solve

NUM_TIMES, NUM_STATES, TOLERANCE = 50, 20, 1e-5
ALONE = "each alone"
PEERS = {g: Mode(ALONE, g) for g in GRADIENTS}
METHODS: dict[str, dict[str, Any]] = {
    "dopri5": {"method": "dopri5", "rtol": TOLERANCE, "atol": TOLERANCE},
    "rk4": {"method": "rk4_classic", "num_steps": 1},
}


class Driven(nn.Module):
    """Oscillators that a small network couples and a force drives."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(NUM_STATES, 50), nn.Tanh(), nn.Linear(50, NUM_STATES))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        place, speed = y.chunk(2, -1)
        return torch.cat([2 * speed, -2 * place], -1) + self.net(y) + torch.sin(3 * t)


@dataclass(frozen=True)
class Series:
    """Starts `(series, state)`, and times `(series, times)` that begin at 0; a vector field, and a solve."""

    y0: Tensor
    ts: Tensor
    field: nn.Module
    solve: Callable[[nn.Module, Tensor, Tensor], Solution[Tensor]]

    def together(self) -> list[Solution[Tensor]]:
        """One solve, in which each series has its own times."""
        return [self.solve(self.field, self.y0, self.ts)]

    def alone(self) -> list[Solution[Tensor]]:
        """One solve for each series."""
        return [self.solve(self.field, y0[None], ts) for y0, ts in zip(self.y0, self.ts, strict=True)]

    def union(self) -> list[Solution[Tensor]]:
        """One solve of all through all times that one of them has."""
        union, position = self.ts.unique(return_inverse=True)
        solution = self.solve(self.field, self.y0, union)
        return [replace(solution, ys=solution.ys[position.t(), torch.arange(len(self.y0))])]


def entries(method: str, batch: int) -> Iterator[Entry]:
    """All of them, by one method."""
    ways = {ALONE: Series.alone, "union of times": Series.union, "own times": Series.together}
    for name, way in ways.items():
        for gradient in GRADIENTS:
            yield Mode(name, gradient), partial(_contender, batch, way, gradient, METHODS[method])
    if method == "dopri5":
        keys = METHODS[method] | {"batching": "per_sample"}
        for gradient in GRADIENTS:
            mode = Mode("own times, per_sample", gradient)
            yield mode, partial(_contender, batch, Series.together, gradient, keys)


def reference(batch: int) -> Outcome:
    """In float64, each alone, by torchdiffeq: not by the code that is judged."""
    field = Driven().double()
    one = torchdiffeq_solve("direct")(field, 1e-9)
    y0, ts = _drawn(batch)[0]
    ys = torch.cat([one(start[None], times) for start, times in zip(y0.double(), ts, strict=True)], 1)
    return ys.detach(), _gradients(field, ys)


def _drawn(batch: int) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    ends = torch.linspace(1, 2, batch, dtype=torch.float64)[:, None]
    series = []
    for _ in range(NUM_BATCHES):
        steps = torch.rand(batch, NUM_TIMES - 1, dtype=torch.float64).cumsum(1)
        ts = torch.cat([torch.zeros_like(ends), ends * steps / steps[:, -1:]], 1)
        series.append((torch.randn(batch, NUM_STATES), ts))
    return series


def _contender(
    batch: int, way: Callable[[Series], list[Solution[Tensor]]], gradient: str, keys: dict[str, Any]
) -> Contender:
    field = Driven()
    data = [Series(y0, ts, field, partial(solve, gradient=gradient, **keys)) for y0, ts in _drawn(batch)]

    def run(n: int) -> tuple[list[Solution[Tensor]], Outcome]:
        solutions = way(data[n % NUM_BATCHES])
        ys = torch.cat([solution.ys for solution in solutions], 1)
        return solutions, (ys.detach(), _gradients(field, ys))

    def count(n: int) -> tuple[int, int]:
        solutions, _ = run(n)
        return sum(s.stats.nfe for s in solutions), sum(s.backward_stats.nfe for s in solutions)

    return Contender(run, lambda: run(0)[1], count)


def _gradients(field: nn.Module, ys: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*field.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(ys.square().mean(), parameters), strict=True))
