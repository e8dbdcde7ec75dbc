"""The dark squares of a board."""

from __future__ import annotations

import torch

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.points import balanced_targets, point_dataset

SQUARES = 4  # along a side
SIDE = 2.0  # of a square


def checkerboard(
    num_samples: int, data_seed: int, split_seed: int, val_fraction: float, test_fraction: float
) -> Dataset:
    """Points `(2,)` uniform on the eight dark squares of a 4 by 4 board from -4 to 4; the classes are the squares.

    Its density is 1/32 on them: no model has an expected negative log-likelihood below log 32 = 3.466 nats.

    Source: FFJORD (arXiv 1810.01367).

    Raises:
        ValueError: a key is out of range.
    """
    generator = torch.Generator().manual_seed(data_seed)
    targets = balanced_targets(num_samples, SQUARES**2 // 2)
    rows = targets // (SQUARES // 2)
    columns = 2 * (targets % (SQUARES // 2)) + rows % 2
    corners = torch.stack([columns, rows], dim=1) - SQUARES / 2
    inputs = SIDE * (corners + torch.rand(num_samples, 2, generator=generator))
    return point_dataset(inputs, targets, split_seed, val_fraction, test_fraction)
