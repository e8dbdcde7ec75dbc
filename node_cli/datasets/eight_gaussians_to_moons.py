"""Two moons, with eight Gaussians in the place of noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from node_cli.batch import Batch, num_samples
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.eight_gaussians import NUM_GAUSSIANS, around_a_circle
from node_cli.datasets.moons import half_circles
from node_cli.datasets.points import add_noise, balanced_targets, point_dataset

RADIUS, STD = 5.0, 0.1**0.25  # of the eight Gaussians
SCALE, SHIFT = 3.0, -1.0  # of the moons


@dataclass(frozen=True)
class FreshSource:
    """An augmentation: every training batch has a `source` that was never seen before."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return {**batch, "source": _source(num_samples(batch), generator).to(batch["source"])}


def eight_gaussians_to_moons(
    num_samples: int, noise: float, data_seed: int, split_seed: int, val_fraction: float, test_fraction: float
) -> Dataset:
    """Points `(2,)` on two moons three times as large as those of `moons`, and a `source` `(2,)` for each.

    `source` takes the place of a normal base: eight Gaussians on a circle of radius 5, independent of the moons, drawn
    anew for each training batch. The classes are the moons.

    Source: the experiment of torchcfm (Tong et al. 2024, arXiv 2302.00482), with its sizes; its results, and those of
    arXiv 2503.10636 with the moon as condition, are *squares* of the 2-Wasserstein distance.

    Raises:
        ValueError: a key is out of range.
    """
    generator = torch.Generator().manual_seed(data_seed)
    targets = balanced_targets(num_samples, 2)
    inputs = SCALE * add_noise(half_circles(targets, generator), noise, generator) + SHIFT
    source = _source(num_samples, generator)
    dataset = point_dataset(inputs, targets, split_seed, val_fraction, test_fraction, source=source)
    offers = {**dataset.offers, "has_source": True}
    return replace(dataset, augmentation=FreshSource(), offers=offers)


def _source(count: int, generator: torch.Generator) -> torch.Tensor:
    return around_a_circle(torch.randint(NUM_GAUSSIANS, (count,), generator=generator), RADIUS, STD, generator)
