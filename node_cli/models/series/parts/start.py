"""Where a trajectory starts: at an observation, at learned values, or where an encoder says."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.models.series.parts.history import History, at_index
from node_cli.ode.checks import require_at_least, require_choice
from node_cli.ode.errors import ArgumentError
from node_cli.series import SEGMENT, START

STARTS = ("first", "learned", "encoder", "last")


class Beginning(NamedTuple):
    """Of each sample: what a start state is made of.

    Attributes:
        first: `(n,)` the index of the time at which the trajectory starts.
        values: `(n, C)`.
        slopes: `(n, C)`, between the first two observations seen of each channel (of `last`: the last two).
        extra: `(n, num_extra)`, 0 unless learned or encoded.
    """

    first: Tensor
    values: Tensor
    slopes: Tensor
    extra: Tensor


class Start(nn.Module):
    """The beginning of each series of a batch.

    `first`: the first observation seen of each channel (0, the mean, where there is none). `learned`: that plus an
    offset, learned for each sample of the training data and each of its segments, 0 at first; others have none.
    `encoder`: that plus what a GRU makes of all that was seen, read backwards. `last`: the last observation.
    """

    def __init__(
        self, start: str, *, num_channels: int, num_extra: int, num_starts: int, num_segments: int, encoder_width: int
    ) -> None:
        super().__init__()
        require_choice("start", start, STARTS)
        self.kind = start
        self.num_channels = num_channels
        self.num_extra = num_extra
        if start == "learned":
            self.offsets = nn.Parameter(torch.zeros(num_starts, num_segments, num_channels + num_extra))
        if start == "encoder":
            require_at_least("encoder_width", encoder_width, 1)
            self.cell = nn.GRUCell(2 * num_channels + 1, encoder_width)
            self.readout = nn.Linear(encoder_width, num_channels + num_extra)

    def forward(self, batch: Batch) -> Beginning:
        """Of a batch.

        Raises:
            ValueError: in training, a sample has no learned start.
        """
        history = History.of(batch)
        if self.kind == "last":
            last = history.last_times()
            values, slopes = (at_index(tensor, last) for tensor in (history.carried(), history.slopes()))
            return Beginning(last, values, slopes, values.new_zeros(len(values), self.num_extra))
        backwards = history.reversed()
        values, slopes = backwards.carried()[:, -1], backwards.slopes()[:, -1]
        offset = self._offset(batch, backwards)
        first = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        return Beginning(first, values + offset[:, : self.num_channels], slopes, offset[:, self.num_channels :])

    def _offset(self, batch: Batch, backwards: History) -> Tensor:
        if self.kind == "encoder":
            return self._encoded(backwards)
        values = backwards.values
        if self.kind == "first":
            return values.new_zeros(len(values), self.num_channels + self.num_extra)
        number = batch[START]
        if self.training and (number < 0).any():
            raise ArgumentError(
                "model.start must not be learned for samples that are no whole ones of the training data, such as "
                "those of task.strategy=windows: take model.start=first, or task.strategy=multiple_shooting"
            )
        segment = batch.get(SEGMENT, torch.zeros_like(number))
        offset: Tensor = self.offsets[number.clamp(min=0), segment]
        return offset.masked_fill((number < 0)[:, None], 0.0)

    def _encoded(self, backwards: History) -> Tensor:
        times, values, mask = backwards
        state = values.new_zeros(len(values), self.cell.hidden_size)
        read = times[:, 0]  # the time that was read last
        for i in range(times.shape[1]):
            is_seen = mask[:, i].any(1)
            gap = (read - times[:, i]).to(values.dtype)[:, None]
            new = self.cell(torch.cat([values[:, i], mask[:, i].to(values.dtype), gap], dim=1), state)
            state = torch.where(is_seen[:, None], new, state)
            read = torch.where(is_seen, times[:, i], read)
        encoded: Tensor = self.readout(state)
        return encoded
