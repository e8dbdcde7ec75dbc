"""Between the scaled values of the data and a state in the user's units, in which equations are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

FLOOR = 1e-6  # of a typical value: below it a logarithm goes on as a straight line


class Scaled(Protocol):
    """What was subtracted from each channel, and what it was divided by."""

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...


def typical_sizes(scaling: Scaled, *, is_log: bool) -> list[float]:
    """How large each channel is in the user's units: the root of its mean square, or, of logarithms, its middle."""
    pairs = zip(scaling.mean, scaling.std, strict=True)
    return [math.exp(mean) if is_log else math.hypot(mean, std) for mean, std in pairs]


class Units(nn.Module):
    """A state in the user's units, each part divided by its typical size, and the scaled values of its channels.

    Args:
        sizes: of the parts of the state.
        observed: which part each channel is.
        scaling: of the channels, after the logarithm if `is_log`.
        time_scaling: of the time.
    """

    index: Tensor
    size: Tensor
    channel_size: Tensor
    mean: Tensor
    std: Tensor
    rate: Tensor

    def __init__(
        self, sizes: Sequence[float], observed: Sequence[int], scaling: Scaled, time_scaling: Scaled, *, is_log: bool
    ) -> None:
        super().__init__()
        self.is_log = is_log
        self.register_buffer("index", torch.tensor(list(observed)), persistent=False)
        self.time_mean, self.time_std = time_scaling.mean[0], time_scaling.std[0]
        constants = {
            "size": list(sizes),
            "channel_size": [sizes[part] for part in observed],
            "mean": list(scaling.mean),
            "std": list(scaling.std),
            "rate": [self.time_std / size for size in sizes],  # from slopes in the user's units to those of the state
        }
        for name, numbers in constants.items():
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float64), persistent=False)

    def time(self, t: Tensor) -> Tensor:
        """A scaled time in the user's unit."""
        return t * self.time_std + self.time_mean

    def raised(self, values: Tensor) -> Tensor:
        """Scaled values `(..., C)` in the user's units."""
        raw = values * self.std + self.mean
        return raw.exp() if self.is_log else raw

    def values(self, y: Tensor) -> Tensor:
        """The scaled values `(..., C)` of states `(..., S)`; of logarithms, with a gradient at any state."""
        part = y[..., self.index]
        raw = _log(part) + self.channel_size.log() if self.is_log else part * self.channel_size
        return (raw - self.mean) / self.std

    def value_slopes(self, y: Tensor, dy: Tensor) -> Tensor:
        """How fast the scaled values change where states `(..., S)` change by `dy`."""
        slope = dy[..., self.index]
        raw = slope / y[..., self.index].clamp(min=FLOOR) if self.is_log else slope * self.channel_size
        return raw / self.std

    def observed(self, y: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """States `(n, S)` with what is seen of scaled `values` `(n, C)` in its place."""
        seen = torch.where(mask, self.raised(values) / self.channel_size, y[:, self.index])
        return y.index_copy(1, self.index, seen)


def _log(part: Tensor) -> Tensor:
    """The logarithm, and below the floor its tangent there."""
    is_low = part < FLOOR
    safe = torch.where(is_low, FLOOR, part)
    return torch.where(is_low, math.log(FLOOR) + (part - FLOOR) / FLOOR, safe.log())


class InputUnits(nn.Module):
    """Scaled controls and statics in the user's units."""

    mean: Tensor
    std: Tensor

    def __init__(self, scalings: Sequence[Scaled]) -> None:
        super().__init__()
        means = [mean for scaling in scalings for mean in scaling.mean]
        stds = [std for scaling in scalings for std in scaling.std]
        self.num_inputs = len(means)
        self.register_buffer("mean", torch.tensor(means, dtype=torch.float64), persistent=False)
        self.register_buffer("std", torch.tensor(stds, dtype=torch.float64), persistent=False)

    @classmethod
    def of(cls, *scalings: Scaled | None) -> InputUnits | None:
        """Those of controls and statics, in this order; None: there are none."""
        given = [scaling for scaling in scalings if scaling is not None and scaling.mean]
        return cls(given) if given else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Scaled inputs `(n, k + s)` in the user's units."""
        return inputs * self.std + self.mean
