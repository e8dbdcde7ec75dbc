"""A model that solves its ODE from the start of a series to every time of it."""

import torch
from torch import Tensor, nn

from node_cli import OdeBlock
from node_cli.ode.base import Solver
from node_cli.ode.gradients import Gradient


class Force(nn.Module):
    """A vector field of one's own: any module that maps a time and a state to the slope of that state."""

    def __init__(self, num_channels: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(num_channels, width), nn.Tanh(), nn.Linear(width, num_channels))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt of the states `y` `(series, channels)` at the 0-dim time `t`."""
        slope: Tensor = self.net(y)
        return slope


class Trajectories(nn.Module):
    """States at time 0, `(series, channels)` -> states at all times, `(series, times, channels)`.

    `times` and `num_channels` are what the dataset offers, `solver` and `gradient` what the config chooses, and `width`
    is a key of the YAML.
    """

    def __init__(
        self, *, times: tuple[float, ...], num_channels: int, solver: Solver, gradient: Gradient, width: int
    ) -> None:
        super().__init__()
        self.register_buffer("times", torch.tensor(times, dtype=torch.float64), persistent=False)
        field = Force(num_channels, width)
        self.block = OdeBlock(field, solver, gradient, t0=times[0], t1=times[-1], learn_times=False)

    def forward(self, start: Tensor) -> Tensor:
        """Solved once, for all times."""
        return self.block.solve(start, self.times).ys.transpose(0, 1)
