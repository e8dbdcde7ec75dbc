"""From single measurements to a table of times and channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def averaged(measured: Sequence[tuple[int, int, float]], num_channels: int) -> tuple[Tensor, Tensor]:
    """Steps `(T,)` in float64, increasing, and values `(T, num_channels)`, NaN where nothing was measured.

    Args:
        measured: step, channel and value of each; those of the same step and channel are averaged.
        num_channels: how many there are.
    """
    if not measured:
        return torch.empty(0, dtype=torch.float64), torch.empty(0, num_channels, dtype=torch.float64)
    steps, channels, values = zip(*measured, strict=True)
    found, rows = torch.tensor(steps).unique(return_inverse=True)
    place = rows * num_channels + torch.tensor(channels)
    total, count = torch.zeros(2, len(found) * num_channels, dtype=torch.float64)
    total.index_add_(0, place, torch.tensor(values, dtype=torch.float64))
    count.index_add_(0, place, torch.ones(len(place), dtype=torch.float64))
    return found.double(), (total / count).view(len(found), num_channels)  # 0 / 0 is NaN
