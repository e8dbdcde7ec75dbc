"""A GRU-D: a GRU to whom what was seen long ago means less and less."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from node_cli.batch import Batch
from node_cli.models.sequences.encoder import Encoder
from node_cli.models.sequences.reading import Reading
from node_cli.models.series.parts.history import History
from node_cli.ode.checks import require_at_least


class GruDEncoder(Encoder):
    """A missing value is the latest one seen, which decays to the mean (0) with the time since; so does the memory.

    Raises:
        ValueError: the width is below 1.

    Source: Che et al. 2018, *Recurrent Neural Networks for Multivariate Time Series with Missing Values*, Scientific
    Reports 8.
    """

    def __init__(self, *, num_channels: int, num_inputs: int = 0, width: int) -> None:
        super().__init__()
        require_at_least("width", width, 1)
        self.width = width
        # Of exp(-max(0, rate * time + offset)); not 0 at first, where it has no gradient.
        self.value_rate = nn.Parameter(torch.full((num_channels,), 0.1))
        self.value_offset = nn.Parameter(torch.full((num_channels,), 0.1))
        self.memory_decay = nn.Linear(num_channels, width)
        self.cell = nn.GRUCell(2 * num_channels + num_inputs, width)

    def forward(self, batch: Batch, *, backwards: bool = False) -> Tensor:
        """See `Encoder.forward`."""
        read = Reading.of(batch, backwards=backwards)
        since = _since_seen(read)
        carried = History(read.times, read.values, read.mask).carried()
        before = torch.cat([torch.zeros_like(carried[:, :1]), carried[:, :-1]], dim=1)
        decayed = (-F.relu(self.value_rate * since + self.value_offset)).exp() * before
        values = torch.where(read.mask, read.values, decayed)
        given = torch.cat([values, read.mask.to(values.dtype), read.inputs], dim=2)
        kept = (-F.relu(self.memory_decay(since))).exp()
        memory, rows = values.new_zeros(len(values), self.width), []
        for i in range(values.shape[1]):
            memory = self.cell(given[:, i], kept[:, i] * memory)
            rows.append(memory)
        return read.after_each(torch.stack(rows, dim=1))


def _since_seen(read: Reading) -> Tensor:
    """The time `(n, R, C)` since a channel was seen before each time, or since reading began."""
    since = torch.zeros_like(read.values[:, 0])
    rows = []
    for gap, mask in zip(read.gaps.unbind(1), read.mask.unbind(1), strict=True):
        since = since + gap[:, None]
        rows.append(since)
        since = torch.where(mask, 0.0, since)
    return torch.stack(rows, dim=1)
