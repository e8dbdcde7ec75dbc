"""Baselines that are no ODEs: from time to time, each prediction is the input of the next where nothing is seen."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.models.series.parts.history import History
from node_cli.models.series.parts.inputs import Inputs
from node_cli.series import SeriesModel

# What a step is made of: current values `(n, C)`, their mask, the time gap to the next `(n, 1)`, and the inputs at
# both times `(n, 2 (k + s))`, or None; it gives the next values `(n, C)`.
Step = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


class Autoregressive(SeriesModel):
    """A model that steps from time to time; where a value is seen, it stands in the place of its prediction."""

    is_continuous = False

    @abstractmethod
    def stepper(self, batch_size: int, like: Tensor) -> Step:
        """What steps through a batch, with the memory that it needs; tensors are made as `like` is."""

    def forward(self, batch: Batch) -> Tensor:
        """At the first time what was seen, or 0; then each value predicted from what was seen before its time."""
        return self._predicted(batch)

    def one_step(self, batch: Batch) -> Tensor:
        """The same, NaN at the first time."""
        later = self._predicted(batch)[:, 1:]
        return torch.cat([later.new_full((len(later), 1, later.shape[2]), math.nan), later], dim=1)

    def _predicted(self, batch: Batch) -> Tensor:
        history, inputs = History.of(batch), Inputs.of(batch, "hold")
        times, values, mask = history
        given = None if inputs is None else inputs.at_times()
        gaps = times.diff(dim=1).to(values.dtype)
        step = self.stepper(len(values), values)
        rows = [values[:, 0]]
        for i in range(values.shape[1] - 1):
            current = torch.where(mask[:, i], values[:, i], rows[-1])
            both = None if given is None else given[:, i : i + 2].flatten(1)
            rows.append(step(current, mask[:, i], gaps[:, i : i + 1], both))
        return torch.stack(rows, dim=1)
