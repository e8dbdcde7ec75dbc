"""How far two sets of samples are from each other, exactly, and how far two of the same distribution are."""

from __future__ import annotations

import torch
from torch import Tensor

from node_cli.ode.checks import require
from node_cli.tasks.couplings import assigned

MOST = 2_000  # samples; the time grows with the cube of it, and is about a second here


def wasserstein2(a: Tensor, b: Tensor) -> float:
    """The 2-Wasserstein distance of two sets of equally many samples `(n, d...)`, in their units.

    It is the root of the mean squared distance in the best pairing. Papers on flow matching often print its square.

    Raises:
        ValueError: unequal shapes, more than 2,000 samples, or values that are not finite.
    """
    require(len(a) <= MOST, f"there must be at most {MOST:,} samples for an exact distance", f"{len(a):,}")
    pairs = assigned(a, b)
    return (a - b[pairs]).double().flatten(1).square().sum(1).mean().sqrt().item()


def wasserstein2_floor(data: Tensor, size: int, generator: torch.Generator) -> float:
    """The same of two sets of `size` samples that share none, both drawn from `data` `(n, d...)` at random.

    A perfect model is as far from the data as that, on average: no distance means anything without it.

    Raises:
        ValueError: `data` has less than twice as many samples.
    """
    require(len(data) >= 2 * size, f"there must be at least 2 * {size:,} samples for two sets", f"{len(data):,}")
    order = torch.randperm(len(data), generator=generator).to(data.device)
    return wasserstein2(data[order[:size]], data[order[size : 2 * size]])
