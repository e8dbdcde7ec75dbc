"""Rings around each other."""

from __future__ import annotations

import math

import torch

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.points import add_noise, balanced_targets, on_circle, point_dataset
from node_cli.ode.checks import require_at_least

LARGEST = 3.0  # radius


def rings(
    num_samples: int,
    num_rings: int,
    noise: float,
    data_seed: int,
    split_seed: int,
    val_fraction: float,
    test_fraction: float,
) -> Dataset:
    """Points `(2,)` on circles of evenly spaced radii up to 3, equally many on each, with noise; a class each.

    Source: FFJORD (arXiv 1810.01367), with four rings and a noise of 0.08.

    Raises:
        ValueError: a key is out of range.
    """
    require_at_least("num_rings", num_rings, 2)
    generator = torch.Generator().manual_seed(data_seed)
    targets = balanced_targets(num_samples, num_rings)
    radii = LARGEST * (1 + targets) / num_rings
    inputs = radii[:, None] * on_circle(2 * math.pi * torch.rand(num_samples, generator=generator))
    return point_dataset(add_noise(inputs, noise, generator), targets, split_seed, val_fraction, test_fraction)
