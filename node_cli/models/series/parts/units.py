"""Between the scaled values of the data and a state in the user's units, in which equations are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from node_cli.series import Units

FLOOR = 1e-6  # of a typical value: below it a logarithm goes on as a straight line


class Scaled(Protocol):
    """What was subtracted from each column, and what it was divided by."""

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...


def typical_sizes(units: Units) -> list[float]:
    """How large each channel is in the user's units: the root of its mean square, or, of logarithms, their middle."""
    pairs = zip(units.mean, units.std, strict=True)
    return [math.exp(mean) if units.is_log else math.hypot(mean, std) for mean, std in pairs]


class StateUnits(nn.Module):
    """A state in the user's units, each part divided by its typical size, and the scaled values of its channels.

    Args:
        sizes: of the parts of the state.
        observed: which part each channel is.
        units: of the channels and of the time.
    """

    index: Tensor
    size: Tensor
    channel_size: Tensor
    mean: Tensor
    std: Tensor
    rate: Tensor

    def __init__(self, sizes: Sequence[float], observed: Sequence[int], units: Units) -> None:
        super().__init__()
        self.of = units
        self.register_buffer("index", torch.tensor(list(observed)), persistent=False)
        constants = {
            "size": list(sizes),
            "channel_size": [sizes[part] for part in observed],
            "mean": list(units.mean),
            "std": list(units.std),
            "rate": [units.time_scale / size for size in sizes],  # from slopes in the user's units to the state's
        }
        for name, numbers in constants.items():
            self.register_buffer(name, torch.tensor(numbers), persistent=False)

    def raised(self, values: Tensor) -> Tensor:
        """Scaled values `(..., C)` in the user's units."""
        raw = values * self.std + self.mean
        return raw.exp() if self.of.is_log else raw

    def values(self, y: Tensor) -> Tensor:
        """The scaled values `(..., C)` of states `(..., S)`; of logarithms, with a gradient at any state."""
        part = y[..., self.index]
        raw = _log(part) + self.channel_size.log() if self.of.is_log else part * self.channel_size
        return (raw - self.mean) / self.std

    def value_slopes(self, y: Tensor, dy: Tensor) -> Tensor:
        """How fast the scaled values change where states `(..., S)` change by `dy`."""
        slope = dy[..., self.index]
        raw = slope / y[..., self.index].clamp(min=FLOOR) if self.of.is_log else slope * self.channel_size
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
    """Scaled controls and statics in the user's units.

    Args:
        scaled: how many of each there are, and how they were scaled (None: they were not).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *scaled: tuple[int, Scaled | None]) -> None:
        super().__init__()
        means = [mean for count, scaling in scaled for mean in ([0.0] * count if scaling is None else scaling.mean)]
        stds = [std for count, scaling in scaled for std in ([1.0] * count if scaling is None else scaling.std)]
        self.num_inputs = len(means)
        self.register_buffer("mean", torch.tensor(means), persistent=False)
        self.register_buffer("std", torch.tensor(stds), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scaled inputs `(n, k + s)` in the user's units."""
        return inputs * self.std + self.mean

    def typical_sizes(self) -> list[float]:
        """How large each is in the user's units: the root of its mean square."""
        return [math.hypot(*pair) or 1.0 for pair in zip(self.mean.tolist(), self.std.tolist(), strict=True)]
