"""A neural ODE of the second order: channels are positions, and a network is their acceleration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from node_cli.models.series.parts.networks import FieldNetwork, Hidden
from node_cli.models.series.parts.ode_series import OdeSeries
from node_cli.models.series.parts.paired import PairedDynamics
from node_cli.ode.base import Solver
from node_cli.ode.gradients import Gradient
from node_cli.series import Units


class Acceleration(PairedDynamics):
    """dq/dt = v, dv/dt = f(t, (q, v), inputs)."""

    def __init__(
        self, positions: Sequence[int], velocities: Sequence[int | None], units: Units, field: nn.Module
    ) -> None:
        super().__init__(positions, velocities, units)
        self.field = field

    def forward(self, t: Tensor, y: Tensor, inputs: Tensor | None = None) -> Tensor:
        """See `Dynamics.forward`."""
        return torch.cat([y[:, self.num_positions :], self.field(t, y, inputs)], dim=1)


class SecondOrder(OdeSeries):
    """Series `(n, T, C)` as positions whose acceleration is a multilayer perceptron of position, velocity and inputs.

    `velocities` names the channels that are velocities, in the units of the data: `{position: velocity}`; all other
    channels are positions. A velocity that is no channel is at the start the slope between the first two observations
    (of `start=last` the last two).

    Raises:
        ValueError: a key is out of range, or names no channel.

    Source: Norcliffe et al. 2020, *On Second Order Behaviour in Augmented Neural ODEs*, NeurIPS.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        num_controls: int,
        num_statics: int,
        num_starts: int,
        num_segments: int,
        channel_names: tuple[str, ...],
        units: Units,
        solver: Solver,
        gradient: Gradient,
        velocities: dict[str, str] | None,
        width: int,
        num_hidden_layers: int,
        activation: str,
        time_input: bool,
        start: str,
        encoder_width: int,
        controls_between: str,
    ) -> None:
        positions, paired = _pairs(channel_names, velocities or {})
        if units.is_log and any(velocity is not None for velocity in paired):
            raise ValueError("velocities must be null where the data are logarithms: set dataset.log=false")
        num_inputs = num_controls + num_statics
        field = FieldNetwork(
            2 * len(positions),
            num_inputs,
            len(positions),
            Hidden(width, num_hidden_layers, activation),
            time_input=time_input,
        )
        super().__init__(
            Acceleration(positions, paired, units, field),
            solver=solver,
            gradient=gradient,
            num_channels=num_channels,
            num_starts=num_starts,
            num_segments=num_segments,
            num_controls=num_controls,
            num_statics=num_statics,
            start=start,
            encoder_width=encoder_width,
            controls_between=controls_between,
        )


def _pairs(names: Sequence[str], velocities: Mapping[str, str]) -> tuple[list[int], list[int | None]]:
    """The channels that are positions, and of each the one that is its velocity."""
    given = [*velocities, *velocities.values()]
    unknown = [str(name) for name in given if name not in names]
    if unknown or len(set(given)) < len(given):
        raise ValueError(
            f"velocities must pair channels, {{position: velocity}}, each named once of {', '.join(names)}, got "
            f"{dict(velocities)}"
        )
    positions = [name for name in names if name not in velocities.values()]
    paired = [names.index(velocities[name]) if name in velocities else None for name in positions]
    return [names.index(name) for name in positions], paired
