"""A batch of series with output times of their own: one solve of all, each solved alone, and the union of all times.

    python -m benchmarks.own_times [--rounds 10] [--series 64] [--times 50] [--state 20] [--gradient direct]

A solve and its gradient (float32, one thread) of a network that depends on time, by dopri5 at 1e-5 and by rk4 in one
step from time to time. The series begin at the same time, as a union of times needs it, and the longest is twice as
long as the shortest. In turn (A B C A B C), in one process; prints medians with their quartiles, how many times as fast
as the series alone that is, evaluations forwards, and errors against a float64 solve at 1e-10.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.engine.measure import in_turn, machine, percent, relative_error, seconds, spread, table, times
from node_cli.ode import solve

METHODS: dict[str, dict[str, Any]] = {
    "dopri5": {"method": "dopri5", "rtol": 1e-5, "atol": 1e-5},
    "rk4": {"method": "rk4_classic", "num_steps": 1},
}

Solved = tuple[Tensor, int]  # states at all times of all series, `(times, series, state)`, and evaluations


class Driven(nn.Module):
    """Oscillators that a small network couples and a force drives."""

    def __init__(self, state: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(state, 50), nn.Tanh(), nn.Linear(50, state))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        place, speed = y.chunk(2, -1)
        return torch.cat([2 * speed, -2 * place], -1) + self.net(y) + torch.sin(3 * t)


@dataclass(frozen=True)
class Series:
    """Starts `(series, state)`, and times `(series, times)` that begin at 0."""

    y0: Tensor
    ts: Tensor

    @classmethod
    def drawn(cls, num_series: int, num_times: int, state: int) -> Series:
        """From a seed."""
        torch.manual_seed(1)
        steps = torch.rand(num_series, num_times - 1, dtype=torch.float64).cumsum(1)
        ends = torch.linspace(1, 2, num_series, dtype=torch.float64)[:, None]
        ts = torch.cat([torch.zeros_like(ends), ends * steps / steps[:, -1:]], 1)
        return cls(torch.randn(num_series, state), ts)

    def together(self, field: nn.Module, **keys: Any) -> Solved:
        """One solve, in which each series has its own times."""
        solution = solve(field, self.y0, self.ts, **keys)
        return solution.ys, solution.stats.nfe

    def alone(self, field: nn.Module, **keys: Any) -> Solved:
        """One solve for each series."""
        solutions = [solve(field, y0[None], ts, **keys) for y0, ts in zip(self.y0, self.ts, strict=True)]
        return torch.cat([solution.ys for solution in solutions], 1), sum(each.stats.nfe for each in solutions)

    def union(self, field: nn.Module, **keys: Any) -> Solved:
        """One solve of all through all times that one of them has."""
        union, position = self.ts.unique(return_inverse=True)
        solution = solve(field, self.y0, union, **keys)
        return solution.ys[position.t(), torch.arange(len(self.y0))], solution.stats.nfe


def main() -> None:
    """Runs all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 10), ("series", 64), ("times", 50), ("state", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--gradient", choices=("direct", "checkpoint", "adjoint"), default="direct")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    field, exact = Driven(arguments.state), Driven(arguments.state).double()
    exact.load_state_dict(field.state_dict())
    series = Series.drawn(arguments.series, arguments.times, arguments.state)
    ys = solve(exact, series.y0.double(), series.ts, 1e-10, 1e-10, "dopri8", batching="per_sample").ys
    for method, keys in METHODS.items():
        contenders: dict[str, Callable[..., Solved]] = {
            "alone": series.alone,
            "union of times": series.union,
            "own times": series.together,
        }
        if method == "dopri5":
            contenders["own times, per_sample"] = partial(series.together, batching="per_sample")
        steps = {
            name: partial(step, field, partial(run, gradient=arguments.gradient, **keys))
            for name, run in contenders.items()
        }
        taken, found = in_turn(steps, arguments.rounds)
        sys.stdout.write(f"\n## {method}\n\n{report(taken, found, ys)}\n")
    about = ", ".join(f"{key} {value}" for key, value in machine().items())
    sys.stdout.write(f"\n{about}\n")


def step(field: nn.Module, run: Callable[[nn.Module], Solved], _: int) -> Solved:
    """A solve, and the gradients of all parameters."""
    ys, nfe = run(field)
    torch.autograd.grad(ys.square().mean(), tuple(field.parameters()))
    return ys.detach(), nfe


def report(taken: Mapping[str, np.ndarray], found: Mapping[str, Sequence[Solved]], exact: Tensor) -> str:
    """The table of one method."""
    rows = [
        [
            name,
            seconds(spread(each), "ms"),
            times(spread(taken["alone"] / each)),
            str(found[name][-1][1]),
            percent(relative_error(found[name][-1][0], exact)),
        ]
        for name, each in taken.items()
    ]
    return table(("solve", "ms (quartiles)", "times alone", "evaluations", "error"), rows)


if __name__ == "__main__":
    main()
