"""A recurrent network, the baseline that is no differential equation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_cli.models.series.parts.autoregression import Autoregressive, Step
from node_cli.ode.checks import require_at_least


class Gru(Autoregressive):
    """A GRU that reads values, their mask, the time to the next ones, controls of both times and statics.

    What it adds to the values is linear in its memory. Where nothing is seen it reads its own predictions.

    Raises:
        ValueError: the width is below 1.

    Source: Cho et al. 2014, *Learning Phrase Representations using RNN Encoder-Decoder*, EMNLP.
    """

    def __init__(self, *, num_channels: int, num_controls: int, num_statics: int, width: int) -> None:
        super().__init__()
        require_at_least("width", width, 1)
        self.cell = nn.GRUCell(2 * num_channels + 1 + 2 * (num_controls + num_statics), width)
        self.readout = nn.Linear(width, num_channels)

    def stepper(self, batch_size: int, like: Tensor) -> Step:
        """See `Autoregressive.stepper`."""
        memory = like.new_zeros(batch_size, self.cell.hidden_size)

        def step(current: Tensor, mask: Tensor, gap: Tensor, inputs: Tensor | None) -> Tensor:
            nonlocal memory
            read = [current, mask.to(current.dtype), gap, *([] if inputs is None else [inputs])]
            memory = self.cell(torch.cat(read, dim=1), memory)
            following: Tensor = current + self.readout(memory)
            return following

        return step
