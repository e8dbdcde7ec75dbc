"""The spiral of torchdiffeq's `examples/ode_demo.py`: state 2, batch 20, MLP 2-50-2, 10 output times, one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from benchmarks.engine.measure import (
    gradient_errors,
    in_turn,
    machine,
    percent,
    relative_error,
    seconds,
    spread,
    table,
    times,
)
from benchmarks.engine.peers import Build, Solve, is_installed, torchdiffeq_solve, torchdyn_solve, torchode_solve
from node_cli.config import config_dir
from node_cli.ode import Solution, odeint, solve
from node_cli.ode.solution import FirstSteps

BATCH, TOLERANCE, REPEATS = 20, 1e-5, 10
OPTIONAL = ("torchode", "torchdyn", "diffrax")

Outcome = tuple[Any, dict[str, Any]]  # states at the output times, gradients by name


class SpiralField(nn.Module):
    """The example's network: a multilayer perceptron of y**3."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))
        for layer in (self.net[0], self.net[2]):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        return self.net(y**3)


class Counted(nn.Module):
    """A vector field that counts its evaluations."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field, self.nfe = field, 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        self.nfe += 1
        return self.field(t, y)


@dataclass(frozen=True)
class Problem:
    """Where to start, when to look, what to see there."""

    field: SpiralField
    y0: Tensor
    ts: Tensor
    target: Tensor

    def double(self) -> Problem:
        """The same in float64."""
        field = SpiralField().double()
        field.load_state_dict(self.field.state_dict())
        return Problem(field, self.y0.double(), self.ts.double(), self.target.double())

    def step(self, solve: Solve) -> Outcome:
        """A solve and the gradients of its loss."""
        ys = solve(self.y0, self.ts)
        loss = (ys - self.target).abs().mean()
        names, parameters = zip(*self.field.named_parameters(), strict=True)
        return ys.detach(), dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@dataclass(frozen=True)
class Contender:
    """A solver, differentiated in one way; `count` tells its evaluations, forward and backward."""

    solver: str
    gradient: str
    step: Callable[[], Outcome]
    count: Callable[[], tuple[int, int]]

    @property
    def name(self) -> str:
        return f"{self.solver}, {self.gradient}"


def run(rounds: int) -> dict[str, Any]:
    """All figures of this case."""
    torch.set_num_threads(1)
    problem = _problem()
    contenders = [*_contenders(problem)]
    steps = {c.name: lambda _, c=c: c.step() for c in contenders}
    seconds_of, _ = in_turn(steps, rounds, repeats=REPEATS)
    exact = problem.double()
    ys, gradients = exact.step(torchdiffeq_solve("direct")(exact.field, 1e-9))
    rows = []
    for contender in contenders:
        found, found_gradients = contender.step()
        counts = contender.count()
        own, peer = seconds_of[contender.name], seconds_of[_peer_name(contender.gradient)]
        as_tensors = {name: torch.tensor(np.array(grad)) for name, grad in found_gradients.items()}
        rows.append(
            {
                "solver": contender.solver,
                "gradient": contender.gradient,
                "seconds": spread(own),
                "times_peer": spread(peer / own),
                "times_diffrax": spread(seconds_of["diffrax, direct"] / own) if is_installed("diffrax") else None,
                "nfe_forward": counts[0],
                "nfe_backward": counts[1],
                "solution_error": relative_error(torch.tensor(np.array(found)), ys),
                **gradient_errors(as_tensors, gradients),
            }
        )
    return {"machine": machine(), "rounds": rounds, "repeats": REPEATS, "rows": rows}


def markdown(result: dict[str, Any]) -> str:
    """The table, and who is not in it."""
    header = "solver|gradient|ms (quartiles)|times torchdiffeq|times diffrax|evaluations|solution error|gradient error"
    rows = [
        [
            row["solver"],
            row["gradient"],
            seconds(row["seconds"], "ms"),
            times(row["times_peer"]),
            times(row["times_diffrax"]),
            f"{row['nfe_forward']} + {row['nfe_backward']}",
            percent(row["solution_error"]),
            percent(row["gradient_error"]),
        ]
        for row in result["rows"]
    ]
    missing = [f"{name}: not installed" for name in OPTIONAL if not is_installed(name)]
    return "\n\n".join([table(header.split("|"), rows), *missing])


def _problem() -> Problem:
    """Pieces of the true spiral, from points that are drawn along it."""
    torch.manual_seed(0)
    ts = torch.linspace(0, 25, 1000, dtype=torch.float64)
    matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)
    spiral = odeint(lambda t, y: y**3 @ matrix, torch.tensor([[2.0, 0.0]], dtype=torch.float64), ts)[:, 0].float()
    starts = torch.randperm(990)[:BATCH]
    target = torch.stack([spiral[starts + i] for i in range(10)])
    return Problem(SpiralField(), target[0], ts[:10].float(), target)


def _contenders(problem: Problem) -> Iterator[Contender]:
    for gradient in ("direct", "adjoint"):
        yield _peer(problem, "torchdiffeq", gradient, torchdiffeq_solve(gradient))
        if is_installed("torchode"):
            yield _peer(problem, "torchode", gradient, torchode_solve(gradient))
    if is_installed("torchdyn"):
        yield _peer(problem, "torchdyn", "direct", torchdyn_solve())
    if is_installed("diffrax"):
        from benchmarks.engine import with_diffrax

        field = problem.field
        step, count = with_diffrax.step_and_count(
            dict(field.named_parameters()), problem.y0, problem.ts, problem.target, TOLERANCE
        )
        yield Contender("diffrax", "direct", step, count)
    for gradient in ("direct", "checkpoint", "adjoint"):
        yield _ours(problem, "ours", gradient)
    yield _ours(problem, "ours, compile=step", "direct", compile="step")
    for gradient in ("direct", "checkpoint", "adjoint"):
        yield _carrying(problem, "ours, step carried", gradient)
    yield _carrying(problem, "ours, step carried, compile=step", "direct", compile="step")


def _peer(problem: Problem, solver: str, gradient: str, build: Build) -> Contender:
    run_solve = build(problem.field, TOLERANCE)

    def count() -> tuple[int, int]:
        counted = Counted(problem.field)
        at_the_end: list[int] = []

        def solve_and_look(y0: Tensor, ts: Tensor) -> Tensor:
            ys = build(counted, TOLERANCE)(y0, ts)
            at_the_end.append(counted.nfe)
            return ys

        problem.step(solve_and_look)
        return at_the_end[0], counted.nfe - at_the_end[0]

    return Contender(solver, gradient, lambda: problem.step(run_solve), count)


def _ours(problem: Problem, solver: str, gradient: str, **options: str) -> Contender:
    """A solve as in a notebook, which knows nothing of the ones before."""

    def solution(y0: Tensor, ts: Tensor) -> Solution[Tensor]:
        return solve(problem.field, y0, ts, rtol=TOLERANCE, atol=TOLERANCE, gradient=gradient, **options)

    return _contender(problem, solver, gradient, solution)


def _carrying(problem: Problem, solver: str, gradient: str, **options: str) -> Contender:
    """A solve as in training, by the YAML's settings, which tries the first step that the last one recommends."""
    keys = {"rtol": TOLERANCE, "atol": TOLERANCE, **options}
    made_solver = instantiate({**OmegaConf.load(Path(config_dir(), "solver", "dopri5.yaml")), **keys})
    made_gradient = instantiate(OmegaConf.load(Path(config_dir(), "gradient", f"{gradient}.yaml")))
    first_steps = FirstSteps()

    def solution(y0: Tensor, ts: Tensor) -> Solution[Tensor]:
        return made_gradient.solve(made_solver, problem.field, y0, ts, first_steps)

    return _contender(problem, solver, gradient, solution)


def _contender(
    problem: Problem, solver: str, gradient: str, solution: Callable[[Tensor, Tensor], Solution[Tensor]]
) -> Contender:
    def count() -> tuple[int, int]:
        seen = []

        def solve_and_look(y0: Tensor, ts: Tensor) -> Tensor:
            seen.append(solution(y0, ts))
            return seen[0].ys

        problem.step(solve_and_look)
        return seen[0].stats.nfe, seen[0].backward_stats.nfe

    return Contender(solver, gradient, lambda: problem.step(lambda y0, ts: solution(y0, ts).ys), count)


def _peer_name(gradient: str) -> str:
    return f"torchdiffeq, {'direct' if gradient == 'direct' else 'adjoint'}"
