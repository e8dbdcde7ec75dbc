"""A Hamiltonian network: the vector field is the symplectic gradient of a learned energy, which it conserves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from node_cli.models.series.parts.derivatives import gradient_of
from node_cli.models.series.parts.networks import Hidden, network, refuse_inputs, require_smooth
from node_cli.models.series.parts.ode_series import OdeSeries, PlainDynamics
from node_cli.ode.base import Solver
from node_cli.ode.gradients import Gradient
from node_cli.series import Units


class HamiltonianDynamics(PlainDynamics):
    """dq/dt = dH/dp, dp/dt = -dH/dq for a state (q, p), each scaled as its channel.

    In scaled coordinates each pair has a factor of its own, which the scaling gives; H is in the user's units. There it
    is (q^2 + p^2) / 2 plus a network: training begins with oscillations instead of any flow, and long ones are learned.
    """

    factors: Tensor

    def __init__(self, num_channels: int, units: Units, hidden: Hidden) -> None:
        super().__init__(num_channels, 0)
        self.num_pairs = num_channels // 2
        pairs = zip(units.std[: self.num_pairs], units.std[self.num_pairs :], strict=True)
        factors = [units.time_scale / (q * p) for q, p in pairs]
        self.energy_scale = math.exp(-sum(map(math.log, factors)) / len(factors))  # of the network's H
        self.network = network(num_channels, 1, hidden, has_bias=False)
        relative = torch.tensor([factor * self.energy_scale for factor in factors])
        self.register_buffer("factors", torch.cat([relative, -relative]), persistent=False)

    def forward(self, t: Tensor, y: Tensor, inputs: Tensor | None = None) -> Tensor:
        """See `Dynamics.forward`."""
        return gradient_of(self._hamiltonian, y).roll(-self.num_pairs, dims=1) * self.factors

    def energy(self, y: Tensor) -> Tensor:
        """H in the user's units, up to a constant."""
        return self._hamiltonian(y) * self.energy_scale

    def _hamiltonian(self, y: Tensor) -> Tensor:
        energy: Tensor = y.square().sum(-1) / 2 + self.network(y)[..., 0]
        return energy


class Hamiltonian(OdeSeries):
    """Series `(n, T, C)` of positions q, then momenta p, that move by Hamilton's equations; H is learned.

    Of logarithms (`dataset.log=true`) q and p are those.

    Raises:
        ValueError: a key is out of range, or the channels are no pairs.

    Source: Greydanus, Dzamba, Yosinski 2019, *Hamiltonian Neural Networks*, NeurIPS; here trained through the solve.
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
        require_pairs("hamiltonian", num_channels, "positions, then as many momenta")
        require_smooth(activation)
        refuse_inputs("hamiltonian", num_controls, num_statics)
        super().__init__(
            HamiltonianDynamics(num_channels, units, Hidden(width, num_hidden_layers, activation)),
            solver=solver,
            gradient=gradient,
            num_channels=num_channels,
            num_starts=num_starts,
            num_segments=num_segments,
            start=start,
            encoder_width=encoder_width,
        )


def require_pairs(model: str, num_channels: int, kind: str) -> None:
    """Raises ValueError for an odd number of channels."""
    if num_channels % 2:
        raise ValueError(f"model={model} needs an even number of channels: {kind}, got {num_channels}")
