"""Models that tell what a whole series is: an encoder, and what is read from its memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.models.sequences.encoder import Encoder
from node_cli.ode.checks import require, require_choice
from node_cli.series import MASK, VALUES, LabelModel

LAST, MEAN = "last", "mean"
READOUTS = (LAST, MEAN)


class Readout(LabelModel):
    """A linear map of what an encoder remembers: `last`, at the end, or the `mean` over all times with an observation.

    In training, normal noise of std `noise` is added to scaled values, and `dropout` of the memory becomes 0: of few
    series, a network learns each by heart otherwise.

    Raises:
        ValueError: a key is out of range.
    """

    def __init__(self, encoder: Encoder, *, num_outputs: int, readout: str, noise: float, dropout: float) -> None:
        super().__init__()
        require_choice("readout", readout, READOUTS)
        require(0 <= noise < float("inf"), "noise must be 0 or more", noise)
        require(0 <= dropout < 1, "dropout must be 0 or more and below 1", dropout)
        self.encoder = encoder
        self.readout = readout
        self.noise = noise
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.width, num_outputs)

    def forward(self, batch: Batch) -> Tensor:
        """See `LabelModel.forward`."""
        if self.training and self.noise:
            batch = {**batch, VALUES: batch[VALUES] + self.noise * torch.randn_like(batch[VALUES])}
        memory = self.encoder(batch)
        if self.readout == MEAN:
            is_seen = batch[MASK].any(2)[..., None].to(memory.dtype)
            summary = (memory * is_seen).sum(1) / is_seen.sum(1).clamp(min=1)
        else:
            summary = memory[:, -1]
        outputs: Tensor = self.head(self.dropout(summary))
        return outputs
