"""What a batch of series holds, and what every model of series can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_cli.batch import Batch

# The tensors of a batch of n series of up to T times, C channels, k controls and s statics:
TIMES = "times"  # (n, T) float64, scaled; increasing, and a shorter series repeats its last time
VALUES = "values"  # (n, T, C), scaled; 0 where nothing was observed
MASK = "mask"  # (n, T, C) bool: what was observed and the model may see
TARGET = "target"  # (n, T, C) bool: what was observed and an error counts at
CONTROLS = "controls"  # (n, T, k), scaled; absent without controls
STATICS = "statics"  # (n, s), scaled; absent without statics
TARGETS = "targets"  # (n,) int64: the class of each series, or (n, k), scaled: what is to be told of it; absent without
TRUTH = "truth"  # (n, T, C), scaled: values without their noise, known of what was computed; absent otherwise
DROPPED = "dropped"  # (n, T, 1) bool: times that `dataset.drop` hides; absent without
START = "start"  # (n,) int64: which sample of the training data begins there, in the same series; -1: none
SEGMENT = "segment"  # (n,) int64: which segment of its sample, under multiple shooting; absent otherwise
HIDDEN = (TARGET, TARGETS, TRUTH, DROPPED)  # from models


@dataclass(frozen=True)
class Units:
    """The way between scaled values `(..., C)` and times, which models see, and those of the user.

    Args:
        mean, std: of each channel, after the logarithm if `is_log`.
        is_log: whether logarithms of the values were scaled.
        t0, time_scale: the user's time is `t0 + time_scale * scaled`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_log: bool
    t0: float
    time_scale: float

    def values(self, scaled: Tensor) -> Tensor:
        """In the user's units."""
        values = scaled * scaled.new_tensor(self.std) + scaled.new_tensor(self.mean)
        return values.exp() if self.is_log else values

    def scaled(self, values: Tensor) -> Tensor:
        """As models see them; values must be positive if `is_log`."""
        values = values.log() if self.is_log else values
        return (values - values.new_tensor(self.mean)) / values.new_tensor(self.std)

    def times(self, scaled: Tensor) -> Tensor:
        """In the user's unit of time."""
        return self.t0 + self.time_scale * scaled

    def scaled_times(self, times: Tensor) -> Tensor:
        """As models see them."""
        return (times - self.t0) / self.time_scale


class SeriesModel(nn.Module, ABC):
    """Maps a batch of series, of which it sees what `mask` shows, to values at all of their times.

    Attributes:
        is_continuous: it can be asked for values between the times of the data, and they change nothing.
        returns_seen: what it sees is returned as it is, and only what comes after is the model's.
        learns_from_windows: pieces of a series, each with its first observation alone, are enough to train it.
        unused: its keys that have no effect as it was built, each with the reason and what to do: `with start=first:
            set model.start=encoder`.
    """

    is_continuous: bool = True
    returns_seen: bool = False
    learns_from_windows: bool = False
    unused: Mapping[str, str] = {}

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Scaled values `(n, T, C)` at all `times`: what was seen is fitted, the rest is forecast."""

    @abstractmethod
    def one_step(self, batch: Batch) -> Tensor:
        """Scaled values `(n, T, C)`, each predicted from what was seen before its time; NaN at the first time."""

    def slopes(self, batch: Batch) -> Tensor | None:
        """The slopes `(n, T, C)` of scaled values in scaled time that the vector field gives at `values`.

        None: the model is no ODE, or has states that are not observed.
        """
        return None

    def penalty(self) -> Tensor | None:
        """A 0-dim tensor, added to the mean loss; None: nothing."""
        return None

    def named_values(self) -> Mapping[str, Tensor]:
        """Parameters that mean something, 0-dim, in the user's units and with a graph: `alpha`, ..."""
        return {}

    def equations(self) -> list[str]:
        """The model in formulas, one line for each channel; empty: it has none."""
        return []

    def energy(self, batch: Batch) -> Tensor | None:
        """What the model conserves `(n, T)`, at `values`; None: nothing."""
        return None

    def prune(self, progress: float) -> None:
        """Leaves out for good what has proved too small by now; called in training before each loss.

        `progress` of the run goes from 0 to 1.
        """


class LabelModel(nn.Module, ABC):
    """Maps what is seen of each series of a batch to what is to be told of it as a whole: its class, or numbers."""

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """`(n, num_outputs)`: the logits of the classes, or scaled numbers."""


def visible(batch: Batch) -> Batch:
    """What a model may see of a batch: no value that `mask` hides, and nothing of which errors count."""
    values = torch.where(batch[MASK], batch[VALUES], 0.0)
    return {name: values if name == VALUES else tensor for name, tensor in batch.items() if name not in HIDDEN}


def all_observed(batch: Batch) -> Tensor:
    """What was observed and not dropped `(n, T, C)`: the `mask` of a model that sees all of a series."""
    observed = batch[MASK] | batch[TARGET]
    return observed & ~batch[DROPPED] if DROPPED in batch else observed
