"""An ODE-RNN that forecasts: the baseline of latent ODEs whose memory moves by an ODE."""

from __future__ import annotations

from torch import Tensor, nn

from node_cli.models.sequences.ode_rnn import OdeRnnCell
from node_cli.models.series.parts.autoregression import Autoregressive, Step


class OdeRnn(Autoregressive):
    """An `OdeRnnCell` that reads values and their mask, moves on to the next time, and predicts the values there.

    What it adds to the values is linear in its memory. Where nothing is seen it reads its own predictions.

    Source: Rubanova et al. 2019, *Latent ODEs for Irregularly-Sampled Time Series*, NeurIPS.
    """

    def __init__(self, cell: OdeRnnCell, *, num_channels: int) -> None:
        super().__init__()
        self.cell = cell
        self.readout = nn.Linear(cell.width, num_channels)

    def stepper(self, batch_size: int, like: Tensor) -> Step:
        """See `Autoregressive.stepper`."""
        memory = like.new_zeros(batch_size, self.cell.width)

        def step(current: Tensor, mask: Tensor, gap: Tensor, inputs: Tensor | None) -> Tensor:
            nonlocal memory
            memory = self.cell.after(self.cell.updated(memory, current, mask), gap[:, 0])
            following: Tensor = current + self.readout(memory)
            return following

        return step
