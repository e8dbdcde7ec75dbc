"""Two half circles that grip into each other."""

from __future__ import annotations

import math

import torch

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.points import add_noise, balanced_targets, on_circle, point_dataset


def moons(
    num_samples: int, noise: float, data_seed: int, split_seed: int, val_fraction: float, test_fraction: float
) -> Dataset:
    """Points `(2,)` on the upper unit half circle (class 0) and on a lower one around (1, 0.5) (class 1), with noise.

    Source: the curves of scikit-learn's `make_moons`.

    Raises:
        ValueError: a key is out of range.
    """
    generator = torch.Generator().manual_seed(data_seed)
    targets = balanced_targets(num_samples, 2)
    inputs = add_noise(half_circles(targets, generator), noise, generator)
    return point_dataset(inputs, targets, split_seed, val_fraction, test_fraction)


def half_circles(targets: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Points `(samples, 2)` on the half circle of each target `(samples,)`."""
    upper = on_circle(math.pi * torch.rand(len(targets), generator=generator))
    lower = torch.tensor([1.0, 0.5]) - upper
    return torch.where(targets[:, None] == 0, upper, lower)
