"""A spiral that is rolled up: the two dimensions of the Swiss roll that matter."""

from __future__ import annotations

import math

import torch

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.points import add_noise, on_circle, point_dataset
from node_cli.ode.checks import require_at_least

SHRINKING = 5.0


def swiss_roll(
    num_samples: int, noise: float, data_seed: int, split_seed: int, val_fraction: float, test_fraction: float
) -> Dataset:
    """Points `(2,)` on a spiral of one and a half turns with radii from 0.94 to 2.83, with noise; without classes.

    Source: scikit-learn's `make_swiss_roll` without its middle coordinate, over 5, as FFJORD (arXiv 1810.01367) has
    it, with a noise of 0.2.

    Raises:
        ValueError: a key is out of range.
    """
    require_at_least("num_samples", num_samples, 1)
    generator = torch.Generator().manual_seed(data_seed)
    angles = 1.5 * math.pi * (1 + 2 * torch.rand(num_samples, generator=generator))
    inputs = (angles / SHRINKING)[:, None] * on_circle(angles)
    return point_dataset(add_noise(inputs, noise, generator), None, split_seed, val_fraction, test_fraction)
