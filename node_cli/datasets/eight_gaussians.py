"""Eight Gaussians on a circle."""

from __future__ import annotations

import math

import torch

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.points import add_noise, balanced_targets, on_circle, point_dataset
from node_cli.ode.checks import require_positive

NUM_GAUSSIANS = 8


def eight_gaussians(
    num_samples: int,
    radius: float,
    noise: float,
    data_seed: int,
    split_seed: int,
    val_fraction: float,
    test_fraction: float,
) -> Dataset:
    """Points `(2,)` around eight evenly spaced points of a circle of this radius, with Gaussian noise; eight classes.

    Source: the set of the GAN literature; FFJORD (arXiv 1810.01367) has radius 4 and noise 0.5, both over sqrt(2).

    Raises:
        ValueError: a key is out of range.
    """
    require_positive(radius=radius)
    generator = torch.Generator().manual_seed(data_seed)
    targets = balanced_targets(num_samples, NUM_GAUSSIANS)
    inputs = around_a_circle(targets, radius, noise, generator)
    return point_dataset(inputs, targets, split_seed, val_fraction, test_fraction)


def around_a_circle(targets: torch.Tensor, radius: float, noise: float, generator: torch.Generator) -> torch.Tensor:
    """Points `(samples, 2)` around the centre of each target `(samples,)`."""
    return add_noise(radius * on_circle(2 * math.pi / NUM_GAUSSIANS * targets), noise, generator)
