"""Between the values of a dataset, those of the user, and the real numbers that a flow models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from node_cli.ode.checks import require

SMALLEST = 1e-6  # of a number between 0 and 1, and of what it leaves to 1, before its logit


class Scaling(Protocol):
    """How a dataset scales, channel by channel."""

    @property
    def mean(self) -> Sequence[float]:
        """Of each channel."""

    @property
    def std(self) -> Sequence[float]:
        """Of each channel."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """The inputs, scaled."""

    def undo(self, scaled: Tensor) -> Tensor:
        """What was scaled, in the units that it had before."""


@dataclass(frozen=True)
class Space:
    """How inputs of a dataset become states of a flow, and back.

    Values that are whole numbers, `num_levels` of them, have no density: uniform noise makes them one, of which the
    expected log-density is a lower bound of the log-probability of the whole numbers (Theis et al. 2016). Then they lie
    between 0 and 1, and become real numbers by the logit of alpha + (1 - 2 alpha) x, for alpha = `logit`; None: 2x - 1.

    Args:
        shape: of a sample.
        scaling: how the dataset has scaled the inputs; None: not at all.
        num_levels: None: the values are real numbers.
        logit: alpha.

    Raises:
        ValueError: `logit` is out of range.
    """

    shape: tuple[int, ...]
    scaling: Scaling | None
    num_levels: int | None
    logit: float | None

    def __post_init__(self) -> None:
        holds = self.logit is None or 0 < self.logit < 0.5
        require(holds, "logit must be above 0 and below 0.5, or null", self.logit)

    @property
    def dims(self) -> int:
        """Numbers in a sample."""
        return math.prod(self.shape)

    @property
    def is_discrete(self) -> bool:
        """Whether values are whole numbers."""
        return self.num_levels is not None

    def values(self, inputs: Tensor) -> Tensor:
        """In the user's units: levels `0, 1, ...` or real numbers."""
        raw = inputs if self.scaling is None else self.scaling.undo(inputs)
        return raw if self.num_levels is None else (raw * (self.num_levels - 1)).round()

    def inputs(self, values: Tensor) -> Tensor:
        """Real numbers in the user's units, as the dataset scales them."""
        return values if self.scaling is None else self.scaling(values)

    def states(self, inputs: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """What a flow models, and the log-determinant `(n,)` of the way there from the user's units.

        The noise comes from `generator` (on the CPU); None: from torch's own.
        """
        if self.num_levels is None:
            per_sample = 0.0 if self.scaling is None else sum(map(math.log, self.scaling.std))
            channels = len(self.scaling.std) if self.scaling is not None else 1
            return inputs, inputs.new_full((len(inputs),), -per_sample * self.dims / channels)
        noise = uniform(inputs, inputs.shape, generator)
        x = ((self.values(inputs) + noise) / self.num_levels).clamp(SMALLEST, 1 - SMALLEST)
        if self.logit is None:
            return 2 * x - 1, inputs.new_full((len(inputs),), self.dims * math.log(2 / self.num_levels))
        p = self.logit + (1 - 2 * self.logit) * x
        slopes = math.log((1 - 2 * self.logit) / self.num_levels) - p.log() - (1 - p).log()
        return p.logit(), slopes.flatten(1).sum(1)

    def values_of(self, states: Tensor) -> Tensor:
        """The user's values of states: real numbers, or whole numbers, uint8 where that holds them."""
        if self.num_levels is None:
            return self.values(states)
        x = (states + 1) / 2 if self.logit is None else (states.sigmoid() - self.logit) / (1 - 2 * self.logit)
        levels = (x * self.num_levels).floor().clamp(0, self.num_levels - 1)
        return levels.to(torch.uint8 if self.num_levels <= 256 else torch.int64)

    def bits_per_dim(self, nats: float) -> float:
        """Of a negative log-density in nats a sample."""
        return nats / (self.dims * math.log(2))


def uniform(like: Tensor, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Numbers from 0 to 1, of the dtype and on the device of `like`; the same in every dtype."""
    device = like.device if generator is None else None
    return torch.rand(tuple(shape), generator=generator, device=device, dtype=torch.float32).to(like)


def normal(like: Tensor, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers; see `uniform`."""
    device = like.device if generator is None else None
    return torch.randn(tuple(shape), generator=generator, device=device, dtype=torch.float32).to(like)
