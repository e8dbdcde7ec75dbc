"""Whether log-densities by probes are those by the exact trace, and whether densities integrate to 1, on each dataset.

python benchmarks/density_checks.py [moons digits ...] [--updates 2000]
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from hydra import compose, initialize_config_dir

from node_cli.batch import take
from node_cli.build import Problem, build_problem
from node_cli.config import config_dir, resolved
from node_cli.flow import DensityModel
from node_cli.tasks.density import Density
from node_cli.tasks.density_details import probes_beside_exact
from node_cli.tasks.density_figures import integral

PLANE = ("moons", "spheres", "eight_gaussians", "checkerboard", "rings", "swiss_roll", "faithful")
DATASETS = (*PLANE, "patches", "digits")
KEYS = ("task=density", "model.num_layers=2", "solver.rtol=1e-4", "device=cpu", "num_threads=1")
NUM_SAMPLES = 256  # that both traces are found for


def trained(name: str, updates: int, width: int) -> Problem:
    """A flow of the dataset after some updates by flow matching."""
    problem = build_problem(resolved(compose("train", [*KEYS, f"dataset={name}", f"model.width={width}"])))
    optimizer = torch.optim.Adam(problem.model.parameters(), lr=3e-3)
    per_epoch = problem.dataset.num_batches("train", 256)
    for epoch in range(-(-updates // per_epoch)):
        for batch in problem.dataset.train_batches(256, 0, epoch, count=min(per_epoch, updates - epoch * per_epoch)):
            loss = problem.task.loss(problem.model, batch, 0.0)
            optimizer.zero_grad()
            (loss.total / loss.weight).backward()
            optimizer.step()
    problem.model.eval()
    return problem


def checked(problem: Problem) -> tuple[float, float, float | None]:
    """How far probes are from the exact trace on average, the standard error that they print, and the integral."""
    task, model, test = problem.task, problem.model, problem.dataset.splits["test"]
    assert isinstance(task, Density)
    assert isinstance(model, DensityModel)
    off, error = probes_beside_exact(task, model, take(test, slice(NUM_SAMPLES)), task.eval_probes)
    if task.space.shape != (2,):
        return off, error, None
    with torch.no_grad():
        return (
            off,
            error,
            integral(partial(task.log_prob, model), task.space.values(problem.dataset.splits["train"]["inputs"])),
        )


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="*", default=DATASETS)
    parser.add_argument("--updates", type=int, default=2_000)
    arguments = parser.parse_args()
    print("| dataset | probes off, nats | their standard error | integral |\n|---|---|---|---|")
    with initialize_config_dir(config_dir(), version_base="1.3"):
        for name in arguments.datasets:
            off, error, mass = checked(trained(name, arguments.updates, 64))
            print(f"| `{name}` | {off:+.2g} | {error:.2g} | {'-' if mass is None else f'{mass:.3f}'} |", flush=True)


if __name__ == "__main__":
    main()
