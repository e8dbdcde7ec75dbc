"""A Lagrangian network: accelerations follow from a learned Lagrangian of positions and velocities."""

from __future__ import annotations

import torch
from torch import Tensor

from node_cli.models.series.hamiltonian import require_pairs
from node_cli.models.series.parts.derivatives import gradient_and_rows, gradient_of
from node_cli.models.series.parts.networks import Hidden, network, refuse_inputs, require_smooth
from node_cli.models.series.parts.ode_series import OdeSeries
from node_cli.models.series.parts.paired import PairedDynamics
from node_cli.ode.base import Solver
from node_cli.ode.gradients import Gradient
from node_cli.series import Units


class LagrangianDynamics(PairedDynamics):
    """The Euler-Lagrange equations of L(q, v) = v^2 / 2 + network(q, v), in scaled coordinates.

    They hold in any coordinates. The first term makes the mass matrix d2L/dv2 regular where training begins.
    """

    def __init__(self, num_channels: int, units: Units, hidden: Hidden) -> None:
        half = num_channels // 2
        super().__init__(range(half), list(range(half, num_channels)), units)
        self.network = network(num_channels, 1, hidden, has_bias=False)

    def forward(self, t: Tensor, y: Tensor, inputs: Tensor | None = None) -> Tensor:
        """See `Dynamics.forward`; a mass matrix that is singular gives numbers that are not finite."""
        half = self.num_positions
        slope, rows = gradient_and_rows(self._lagrangian, y, half)
        v, mixed, mass = y[:, half:], rows[:, :, :half], rows[:, :, half:]
        force = slope[:, :half] - (mixed @ v[:, :, None])[:, :, 0]
        acceleration = torch.linalg.solve_ex(mass, force).result
        return torch.cat([v, acceleration], dim=1)

    def energy(self, y: Tensor) -> Tensor:
        """V dL/dv - L, in units of its own, up to a constant."""
        flat = y.reshape(-1, self.num_states)
        momentum = gradient_of(self._lagrangian, flat)[:, self.num_positions :]
        energy = (flat[:, self.num_positions :] * momentum).sum(1) - self._lagrangian(flat)
        return energy.view(y.shape[:-1])

    def _lagrangian(self, y: Tensor) -> Tensor:
        kinetic = y[:, self.num_positions :].square().sum(1) / 2
        lagrangian: Tensor = kinetic + self.network(y)[:, 0]
        return lagrangian


class Lagrangian(OdeSeries):
    """Series `(n, T, C)` of positions q, then their velocities, whose Lagrangian is a network.

    Raises:
        ValueError: a key is out of range, the channels are no pairs, or the data are logarithms.

    Source: Cranmer et al. 2020, *Lagrangian Neural Networks*, arXiv:2003.04630; here trained through the solve.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        num_controls: int,
        num_statics: int,
        num_starts: int,
        num_segments: int,
        units: Units,
        solver: Solver,
        gradient: Gradient,
        width: int,
        num_hidden_layers: int,
        activation: str,
        start: str,
        encoder_width: int,
    ) -> None:
        require_pairs("lagrangian", num_channels, "positions, then as many velocities")
        require_smooth(activation)
        refuse_inputs("lagrangian", num_controls, num_statics)
        if units.is_log:
            raise ValueError("model=lagrangian needs velocities, not their logarithms: set dataset.log=false")
        super().__init__(
            LagrangianDynamics(num_channels, units, Hidden(width, num_hidden_layers, activation)),
            solver=solver,
            gradient=gradient,
            num_channels=num_channels,
            num_starts=num_starts,
            num_segments=num_segments,
            start=start,
            encoder_width=encoder_width,
        )
