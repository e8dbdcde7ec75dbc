"""A neural controlled differential equation: the memory of a series, driven by the path through it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.models.ode_stack import ode_block
from node_cli.models.sequences.control import (
    CONTROLS_BETWEEN,
    HERMITE,
    HermitePath,
    Piece,
    num_points_channels,
    points,
    straight_pieces,
)
from node_cli.models.sequences.encoder import Encoder
from node_cli.models.sequences.reading import Reading
from node_cli.models.series.parts.networks import Hidden, network
from node_cli.ode.base import Solver
from node_cli.ode.checks import require_at_least, require_choice
from node_cli.ode.gradients import Gradient
from node_cli.ode.runge_kutta import RungeKutta


class CdeEncoder(Encoder):
    """The memory z solves dz = f(z) dX, where the path X goes through what was seen; f(z) is a matrix, by a network.

    It starts at a linear map of the first observation. X has the time since reading began as a channel, and, with
    `counts`, how often each channel was seen. `control` is what lies between observations: hermite (cubic, with
    backward differences), linear or rectilinear. f has `num_hidden_layers` of `hidden_width`, and tanh at its end.
    With `sees_path` it is f(z, X), as if X were a part of z.

    Raises:
        ValueError: a key is out of range, or the solver compiles.

    Source: Kidger et al. 2020, *Neural Controlled Differential Equations for Irregular Time Series*, NeurIPS.
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
        control: str,
        counts: bool,
        sees_path: bool,
    ) -> None:
        super().__init__()
        require_at_least("width", width, 1)
        require_choice("control", control, CONTROLS_BETWEEN)
        if isinstance(solver, RungeKutta) and solver.is_compiled:
            raise ValueError("solver.compile must be none or auto for a CDE: every batch has a path of its own")
        self.width = width
        self.control = control
        self.counts = counts
        num_path_channels = num_points_channels(num_channels, num_inputs, counts=counts)
        self.initial = nn.Linear(num_path_channels, width)
        hidden = Hidden(hidden_width, num_hidden_layers, activation)
        field = _Matrix(width, num_path_channels, hidden, sees_path=sees_path)
        self.block = ode_block(field, solver, gradient, width, t0=0.0, t1=1.0, learn_times=False)

    def forward(self, batch: Batch, *, backwards: bool = False) -> Tensor:
        """See `Encoder.forward`."""
        read = Reading.of(batch, backwards=backwards, block=self.block)
        knots = points(read, counts=self.counts)
        memory = self.initial(knots[:, 0])
        if knots.shape[1] == 1:
            return read.after_each(memory[:, None])
        if self.control == HERMITE:
            at_knots = (read.is_read.cumsum(1) - 1).clamp(min=0).to(read.times.dtype)
            driven = _Driven(self.block.vector_field, HermitePath.through(knots))
            memories = self.block.solve(memory, at_knots, driven).ys.transpose(0, 1)
            return read.after_each(memories)
        return read.after_each(self._along_straight_pieces(memory, knots))

    def _along_straight_pieces(self, memory: Tensor, knots: Tensor) -> Tensor:
        """A solve for each: at their seams the slope of the path jumps."""
        rows = [memory]
        for piece in straight_pieces(knots, self.control):
            rows.append(self.block.solve(rows[-1], self.block.ts, _Driven(self.block.vector_field, piece)).ys[-1])
        return torch.stack(rows[:: (len(rows) - 1) // (knots.shape[1] - 1)], dim=1)


class _Matrix(nn.Module):
    """States `(n, width)` and places of the path `(n, channels)` -> matrices `(n, width, channels)`."""

    def __init__(self, width: int, num_channels: int, hidden: Hidden, *, sees_path: bool) -> None:
        super().__init__()
        self.shape = (width, num_channels)
        self.sees_path = sees_path
        self.layers = network(width + sees_path * num_channels, width * num_channels, hidden)

    def forward(self, z: Tensor, place: Tensor) -> Tensor:
        numbers: Tensor = self.layers(torch.cat([z, place], dim=1) if self.sees_path else z)
        return numbers.tanh().view(len(z), *self.shape)


class _Driven(nn.Module):
    """dz/dt = f(z, X) dX/dt for the path X of one batch."""

    def __init__(self, matrix: nn.Module, path: HermitePath | Piece) -> None:
        super().__init__()
        self.matrix = matrix
        self.path = path

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        place, slope = (each.to(z.dtype) for each in self.path.at(t))
        dz: Tensor = (self.matrix(z, place) @ slope[..., None]).squeeze(2)
        return dz
