"""Who takes part in a small problem: ours in all modes, and the peers that are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from benchmarks.engine.contender import Contender, Entry, Mode
from benchmarks.engine.peers import Build, has_diffrax, is_installed, torchdiffeq_solve, torchode_solve
from benchmarks.engine.problems import AutogradFlowField, FlowField, Problem
from node_cli.config import config_dir
from node_cli.ode import Solution, solve
from node_cli.ode.compilation import MODES
from node_cli.ode.solution import FirstSteps

GRADIENTS = ("direct", "checkpoint", "adjoint")
# A method and a tolerance with fewer evaluations, whose errors are below those of torchdiffeq's dopri5 all the same.
CHEAPER = {"spiral": ("bosh3", 1e-4), "ffjord": ("bosh3", 3e-3)}
# States so small need no memory saved: whatever is exact is held against what is exact.
TORCHDIFFEQ = {g: Mode("torchdiffeq", "adjoint" if g == "adjoint" else "direct") for g in GRADIENTS}

Run = Callable[[Tensor, Tensor], Solution[Tensor]]


class Counted(nn.Module):
    """A vector field that counts its evaluations."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field, self.nfe = field, 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        self.nfe += 1
        return self.field(t, y)


def entries(problem: Problem) -> Iterator[Entry]:
    """All of them."""
    for gradient in ("direct", "adjoint"):
        yield Mode("torchdiffeq", gradient), partial(peer, problem, torchdiffeq_solve(gradient))
        if isinstance(problem.field, FlowField):
            field = AutogradFlowField(problem.field)
            mode = Mode("torchdiffeq", gradient, network="its example's")
            yield mode, partial(peer, problem, torchdiffeq_solve(gradient), field)
        if is_installed("torchode"):
            yield Mode("torchode", gradient), lambda gradient=gradient: peer(problem, torchode_solve(gradient))
    if has_diffrax(problem.device.type):
        for gradient in ("checkpoint", "adjoint"):
            yield Mode("diffrax", gradient, "solve"), partial(_diffrax, problem, gradient)
    yield from ours(problem)
    if problem.name in CHEAPER:
        method, tolerance = CHEAPER[problem.name]
        for gradient in ("direct", "checkpoint"):
            mode = Mode("ours", gradient, "solve", solver_keys=f"{method} at {tolerance:.0e}".replace("e-0", "e-"))
            yield mode, partial(_ours, problem, gradient, "solve", "chosen", method, tolerance)


def ours(problem: Problem) -> Iterator[Entry]:
    """In all modes."""
    for compile, first_step, gradient in product(MODES, ("chosen", "carried"), GRADIENTS):
        yield Mode("ours", gradient, compile, first_step), partial(_ours, problem, gradient, compile, first_step)


def peer(problem: Problem, build: Build, field: nn.Module | None = None) -> Contender:
    """A solver of another library, with the field of the problem or one that has the same weights."""
    solve = build(field or problem.field, problem.tolerance)

    def count(n: int) -> tuple[int, int]:
        counted, at_the_end = Counted(field or problem.field), []

        def solve_and_look(y0: Tensor, ts: Tensor) -> Tensor:
            ys = build(counted, problem.tolerance)(y0, ts)
            at_the_end.append(counted.nfe)
            return ys

        problem.step(solve_and_look, n)
        return at_the_end[0], counted.nfe - at_the_end[0]

    return Contender(lambda n: problem.step(solve, n), lambda: problem.step(solve, 0), count)


def _diffrax(problem: Problem, gradient: str) -> Contender:
    from benchmarks.engine import with_diffrax

    return with_diffrax.contender(problem, gradient)


def _ours(
    problem: Problem,
    gradient: str,
    compile: str,
    first_step: str,
    method: str = "dopri5",
    tolerance: float | None = None,
) -> Contender:
    build = {"chosen": _as_in_a_notebook, "carried": _as_in_training}[first_step]
    run = build(problem, gradient, compile, method, tolerance or problem.tolerance)
    seen: list[Solution[Tensor]] = []

    def solve_and_look(y0: Tensor, ts: Tensor) -> Tensor:
        seen[:] = [run(y0, ts)]
        return seen[0].ys

    def count(n: int) -> tuple[int, int]:
        problem.step(solve_and_look, n)
        return seen[0].stats.nfe, seen[0].backward_stats.nfe

    return Contender(
        lambda n: problem.step(lambda y0, ts: run(y0, ts).ys, n), lambda: problem.step(solve_and_look, 0), count
    )


def _as_in_a_notebook(problem: Problem, gradient: str, compile: str, method: str, tolerance: float) -> Run:
    """Knows nothing of the solves before."""
    keys = {"method": method, "gradient": gradient, "compile": compile}
    return lambda y0, ts: solve(problem.field, y0, ts, tolerance, tolerance, **keys)


def _as_in_training(problem: Problem, gradient: str, compile: str, method: str, tolerance: float) -> Run:
    """By the YAML's settings; tries the first step that the last solve recommends."""
    keys = {"rtol": tolerance, "atol": tolerance, "compile": compile}
    solver = instantiate({**OmegaConf.load(Path(config_dir(), "solver", f"{method}.yaml")), **keys})
    made_gradient = instantiate(OmegaConf.load(Path(config_dir(), "gradient", f"{gradient}.yaml")))
    first_steps = FirstSteps()
    return lambda y0, ts: made_gradient.solve(solver, problem.field, y0, ts, first_steps)
