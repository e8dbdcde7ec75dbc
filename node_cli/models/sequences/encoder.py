"""What reads a series, and the recurrent network that does."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.models.sequences.reading import Reading
from node_cli.ode.checks import require_at_least


class Encoder(nn.Module, ABC):
    """Reads what was seen of each series, time after time, into a memory.

    Attributes:
        width: how many numbers the memory is.
    """

    width: int

    @abstractmethod
    def forward(self, batch: Batch, *, backwards: bool = False) -> Tensor:
        """The memory after each time `(n, T, width)`, in the order of reading, so that `[:, -1]` is that of the end.

        It stays as it is where nothing was seen. `backwards` reads from the last time to the first.
        """


class RecurrentEncoder(Encoder):
    """A GRU that reads values, their mask, the time since the ones before, and `num_inputs` controls and statics.

    Raises:
        ValueError: the width is below 1.

    Source: Cho et al. 2014, *Learning Phrase Representations using RNN Encoder-Decoder*, EMNLP.
    """

    def __init__(self, *, num_channels: int, num_inputs: int = 0, width: int) -> None:
        super().__init__()
        require_at_least("width", width, 1)
        self.width = width
        self.network = nn.GRU(2 * num_channels + 1 + num_inputs, width, batch_first=True)

    def forward(self, batch: Batch, *, backwards: bool = False) -> Tensor:
        """See `Encoder.forward`."""
        read = Reading.of(batch, backwards=backwards)
        mask = read.mask.to(read.values.dtype)
        memory, _ = self.network(torch.cat([read.values, mask, read.gaps[..., None], read.inputs], dim=2))
        return read.after_each(memory)
