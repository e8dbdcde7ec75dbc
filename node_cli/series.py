"""What a batch of series holds, and what every model of series can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from node_cli.batch import Batch

# The tensors of a batch of n series of up to T times, C channels, k controls and s statics:
TIMES = "times"  # (n, T) float64, scaled; increasing, and a shorter series repeats its last time
VALUES = "values"  # (n, T, C), scaled; 0 where nothing was observed
MASK = "mask"  # (n, T, C) bool: what was observed and the model may see
TARGET = "target"  # (n, T, C) bool: what was observed and an error counts at
CONTROLS = "controls"  # (n, T, k), scaled; absent without controls
STATICS = "statics"  # (n, s), scaled; absent without statics
SERIES = "series"  # (n,) int64: which series of the training data; -1: none of them
SEGMENT = "segment"  # (n,) int64: which segment of its series, under multiple shooting; absent otherwise


class SeriesModel(nn.Module, ABC):
    """Maps a batch of series, of which it sees what `mask` shows, to values at all of their times."""

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
