"""An ODE-RNN: the memory moves by an ODE from observation to observation, and is updated at each by a GRU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.models.ode_stack import ode_block
from node_cli.models.sequences.encoder import Encoder
from node_cli.models.sequences.reading import Reading
from node_cli.models.series.parts.networks import Hidden, network
from node_cli.ode.base import Solver
from node_cli.ode.checks import require_at_least
from node_cli.ode.gradients import Gradient


class OdeRnnCell(nn.Module):
    """A memory `(n, width)` with its two ways to change: over a time, and at an observation.

    Between observations dz/dt = f(z), with f of `num_hidden_layers` of `hidden_width`; samples have times of their own,
    and are solved together.

    Raises:
        ValueError: a key is out of range.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        num_inputs: int = 0,
        solver: Solver,
        gradient: Gradient,
        width: int,
        hidden_width: int,
        num_hidden_layers: int,
        activation: str,
    ) -> None:
        super().__init__()
        require_at_least("width", width, 1)
        self.width = width
        field = _Field(network(width, width, Hidden(hidden_width, num_hidden_layers, activation)))
        self.block = ode_block(field, solver, gradient, width, t0=0.0, t1=1.0, learn_times=False)
        self.cell = nn.GRUCell(2 * num_channels + num_inputs, width)

    def after(self, memory: Tensor, gaps: Tensor) -> Tensor:
        """The memory so long `(n,)`, 0 or more, after."""
        if not self.block.largest(int(gaps.any()), gaps.device):
            return memory
        times = torch.stack([torch.zeros_like(gaps), gaps], dim=1).double()
        return self.block.solve(memory, times).ys[-1]

    def updated(self, memory: Tensor, values: Tensor, mask: Tensor, inputs: Tensor | None = None) -> Tensor:
        """The memory after an observation, `values` and `mask` `(n, C)`, `inputs` `(n, k + s)`."""
        read = [values, mask.to(values.dtype), *([] if inputs is None else [inputs])]
        new: Tensor = self.cell(torch.cat(read, dim=1), memory)
        return new


class OdeRnnEncoder(Encoder):
    """Reads by an `OdeRnnCell`, with memory 0 at the time at which reading begins.

    Raises:
        ValueError: see `OdeRnnCell`.

    Source: Rubanova et al. 2019, *Latent ODEs for Irregularly-Sampled Time Series*, NeurIPS.
    """

    def __init__(self, cell: OdeRnnCell) -> None:
        super().__init__()
        self.width = cell.width
        self.cell = cell

    def forward(self, batch: Batch, *, backwards: bool = False) -> Tensor:
        """See `Encoder.forward`."""
        read = Reading.of(batch, backwards=backwards, block=self.cell.block)
        memory, rows = read.values.new_zeros(len(read.values), self.width), []
        for i in range(read.times.shape[1]):
            memory = self.cell.after(memory, read.gaps[:, i])
            memory = self.cell.updated(memory, read.values[:, i], read.mask[:, i], read.inputs[:, i])
            rows.append(memory)
        return read.after_each(torch.stack(rows, dim=1))


class _Field(nn.Module):
    """A vector field that does not depend on the time."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        dy: Tensor = self.layers(y)
        return dy
