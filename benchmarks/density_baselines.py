"""What Gaussians, mixtures and categorical pixels give on each dataset, and the floor of the 2-Wasserstein distance.

python benchmarks/density_baselines.py [digits moons ...] [--seeds 5]
"""

from __future__ import annotations

import argparse
import statistics

import torch
from hydra import compose, initialize_config_dir

from node_cli.build import build_dataset, build_model
from node_cli.config import config_dir, resolved
from node_cli.tasks.density import Density
from node_cli.tasks.density_baselines import baselines
from node_cli.tasks.wasserstein import MOST, wasserstein2_floor

PLANE = ("moons", "eight_gaussians", "checkerboard", "rings", "swiss_roll", "eight_gaussians_to_moons", "faithful")
DATASETS = ("digits", *PLANE, "patches")
ROWS = ("categorical", "gaussian", "gaussian_mixture", "logit_gaussian", "logit_gaussian_mixture")
SAMPLES = ("train", "val", "test")


def measured(name: str, split_seed: int) -> dict[str, float]:
    """The numbers of one dataset: bits per dimension of whole numbers, else nats a sample; `floor` in the plane."""
    seeded = [] if name == "patches" else [f"dataset.split_seed={split_seed}"]
    config = resolved(compose("train", ["task=density", f"dataset={name}", "device=cpu", *seeded]))
    dataset = build_dataset(config)
    _, task = build_model(config, dataset.offers)
    assert isinstance(task, Density)
    inputs = [dataset.splits[split]["inputs"] for split in SAMPLES]
    found = baselines(*inputs, task.space)
    if task.space.is_discrete:
        found = {key: task.space.bits_per_dim(nats) for key, nats in found.items()}
    if task.space.dims == 2:
        values = task.space.values(torch.cat(inputs))
        size = min(MOST, len(values) // 2)
        found["floor"] = wasserstein2_floor(values, size, torch.Generator().manual_seed(split_seed))
    return found


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="*", default=DATASETS)
    parser.add_argument("--seeds", type=int, default=5, help="splits of each dataset")
    arguments = parser.parse_args()
    columns = (*ROWS, "floor")
    print(f"| dataset | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    with initialize_config_dir(config_dir(), version_base="1.3"):
        for name in arguments.datasets:
            found = [measured(name, seed) for seed in range(1 if name == "patches" else arguments.seeds)]
            cells = [_cell([each[column] for each in found if column in each]) for column in columns]
            print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


def _cell(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "-"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    main()
