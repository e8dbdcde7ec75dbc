"""A ball inside a shell: what no ODE of the same dimension can pull apart."""

from __future__ import annotations

import torch

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.points import balanced_targets, point_dataset
from node_cli.ode.checks import require_at_least


def spheres(
    dim: int,
    r1: float,
    r2: float,
    r3: float,
    num_samples: int,
    data_seed: int,
    split_seed: int,
    val_fraction: float,
    test_fraction: float,
) -> Dataset:
    """Points `(dim,)` spread evenly over a ball of radius `r1` (class 0) and a shell between `r2` and `r3` (class 1).

    Source: the function g of Dupont, Doucet, Teh, Augmented Neural ODEs, NeurIPS 2019, section 4.2.

    Raises:
        ValueError: a key is out of range.
    """
    require_at_least("dim", dim, 1)
    if not 0 < r1 < r2 < r3:
        raise ValueError(f"dataset.r1, dataset.r2, dataset.r3: got {r1}, {r2}, {r3}, must be positive and growing")
    generator = torch.Generator().manual_seed(data_seed)
    targets = balanced_targets(num_samples, 2)
    directions = torch.randn(num_samples, dim, dtype=torch.float64, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    outer = torch.where(targets == 0, r1, r3).double()
    inner = torch.where(targets == 0, 0.0, r2).double()
    # Volume grows with the dim-th power of the radius; the ratio, unlike the power itself, does not overflow.
    hollow = (inner / outer) ** dim
    uniform = torch.rand(num_samples, dtype=torch.float64, generator=generator)
    radii = outer * (hollow + uniform * (1 - hollow)) ** (1 / dim)
    return point_dataset(radii[:, None] * directions, targets, split_seed, val_fraction, test_fraction)
