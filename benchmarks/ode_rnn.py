"""How much faster an ODE-RNN reads series with times of their own together than one by one.

    python benchmarks/ode_rnn.py [--series 64] [--rounds 3]

Training series of the Japanese vowels with half of their times dropped, by the model of `model=ode_rnn`: both ways in
turn in one process, medians. First the two are compared in float64.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from node_cli.batch import Batch, take
from node_cli.build import Problem, build_problem
from node_cli.config import config_dir, resolved
from node_cli.tasks.labels import outputs

KEYS = ("task=classification", "dataset=japanese_vowels", "dataset.drop=0.5", "model=ode_rnn", "model.noise=0")
HERE = ("device=cpu", "num_threads=1")
SOLVERS = {"midpoint1": ("solver=midpoint1",), "dopri5": ("solver=dopri5", "solver.batching=per_sample")}
ROUNDING = 1e-12  # relative, in float64
Read = Callable[[nn.Module, Batch], Tensor]


def together(model: nn.Module, batch: Batch) -> Tensor:
    """What the model gives for all series, read at once."""
    return outputs(model, batch)


def one_by_one(model: nn.Module, batch: Batch) -> Tensor:
    """The same, each series alone."""
    return torch.cat([outputs(model, take(batch, slice(i, i + 1))) for i in range(len(batch["targets"]))])


def forward(read: Read, model: nn.Module, batch: Batch) -> list[Tensor]:
    """Outputs without a graph."""
    with torch.no_grad():
        return [read(model, batch)]


def step(read: Read, model: nn.Module, batch: Batch) -> list[Tensor]:
    """Outputs, and the gradient of every weight."""
    found = read(model, batch)
    loss = nn.functional.cross_entropy(found, batch["targets"])
    return [found.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def built(precision: str, solver: tuple[str, ...], count: int) -> tuple[nn.Module, Batch]:
    """The model, and so many series."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        config = resolved(compose("train", [*KEYS, *HERE, *solver, f"precision={precision}"]))
    problem: Problem = build_problem(config)
    return problem.model.eval(), take(problem.dataset.splits["train"], slice(count))


def difference(solver: tuple[str, ...], count: int) -> float:
    """The largest relative difference between both ways in float64, of outputs and of gradients."""
    model, batch = built("float64", solver, count)
    pairs = zip(step(together, model, batch), step(one_by_one, model, batch), strict=True)
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


def seconds(solver: tuple[str, ...], work: Callable[..., list[Tensor]], count: int, rounds: int) -> list[float]:
    """Medians of reading together and one by one."""
    model, batch = built("float32", solver, count)
    taken: dict[Read, list[float]] = {together: [], one_by_one: []}
    for _ in range(rounds):
        for read, times in taken.items():
            started = time.perf_counter()
            work(read, model, batch)
            times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in taken.values()]


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("| solver | pass | together, ms | one by one, ms | times as fast | off in float64 |")
    print("|---|---|---:|---:|---:|---:|")
    for name, solver in SOLVERS.items():
        off = difference(solver, arguments.series)
        assert off < ROUNDING, f"{name}: the two ways differ by {off:.1e}"
        for title, work in (("forward", forward), ("forward and backward", step)):
            at_once, alone = seconds(solver, work, arguments.series, arguments.rounds)
            times = f"{1e3 * at_once:.1f} | {1e3 * alone:.1f} | {alone / at_once:.1f}"
            print(f"| {name} | {title} | {times} | {off:.0e} |", flush=True)


if __name__ == "__main__":
    main()
