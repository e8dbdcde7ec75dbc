"""Arms of a spiral, one a class."""

from __future__ import annotations

import math

import torch

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.points import add_noise, balanced_targets, on_circle, point_dataset
from node_cli.ode.checks import require_at_least


def arms(
    num_samples: int,
    num_classes: int,
    turns: float,
    noise: float,
    data_seed: int,
    split_seed: int,
    val_fraction: float,
    test_fraction: float,
) -> Dataset:
    """Points `(2,)` on `num_classes` arms that wind out from the centre to radius 1 in `turns` turns, with noise.

    Arm k has the angle 2 pi (turns * radius + k / num_classes).

    Raises:
        ValueError: a key is out of range.
    """
    require_at_least("num_classes", num_classes, 2)
    generator = torch.Generator().manual_seed(data_seed)
    targets = balanced_targets(num_samples, num_classes)
    radii = torch.rand(num_samples, generator=generator).sqrt()  # about evenly dense along an arm
    angles = 2 * math.pi * (turns * radii + targets / num_classes)
    inputs = radii[:, None] * on_circle(angles)
    return point_dataset(add_noise(inputs, noise, generator), targets, split_seed, val_fraction, test_fraction)
