"""Known equations, and a network for what they leave out."""

from __future__ import annotations

from typing import Any

import torch

from node_cli.models.series.parts.known_dynamics import known_dynamics
from node_cli.models.series.parts.networks import FieldNetwork, Hidden
from node_cli.models.series.parts.ode_series import OdeSeries
from node_cli.models.series.parts.units import InputUnits
from node_cli.ode.base import Solver
from node_cli.ode.checks import require_at_least
from node_cli.ode.gradients import Gradient
from node_cli.series import Units

NEAR_ZERO = 0.01  # of the usual weights of the last layer


class Hybrid(OdeSeries):
    """Series `(n, T, C)` as solutions of known equations plus a network for what they leave out.

    The network sees the state, controls and statics, and the time if `time_input`; the equations see no controls. It
    starts near zero. `network_penalty` times the mean square of its share, along the trajectories and in scaled units,
    is added to the loss: the larger it is, the more the equations have to explain. For the other keys see `Known`.

    Raises:
        ValueError: a key is out of range, or the data do not go with the equations.

    Source: Rackauckas et al. 2020, *Universal Differential Equations for Scientific Machine Learning*,
    arXiv:2001.04385.
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
        time_name: str,
        solver: Solver,
        gradient: Gradient,
        equations: Any,
        parameters: dict[str, float] | None,
        bounds: dict[str, list[float | None]] | None,
        fixed: dict[str, float] | None,
        hidden: dict[str, float] | None,
        width: int,
        num_hidden_layers: int,
        activation: str,
        time_input: bool,
        network_penalty: float,
        start: str,
        encoder_width: int,
        controls_between: str,
    ) -> None:
        require_at_least("network_penalty", network_penalty, 0)
        num_inputs = num_controls + num_statics
        hidden_layers = Hidden(width, num_hidden_layers, activation)
        super().__init__(
            known_dynamics(
                equations=equations,
                parameters=parameters,
                bounds=bounds,
                fixed=fixed,
                hidden=hidden,
                channel_names=channel_names,
                units=units,
                time_name=time_name,
                inputs=InputUnits(),
                rest=lambda num_states: _near_zero(
                    FieldNetwork(num_states, num_inputs, num_states, hidden_layers, time_input=time_input)
                ),
                rest_penalty=network_penalty,
            ),
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


def _near_zero(network: FieldNetwork) -> FieldNetwork:
    with torch.no_grad():
        for parameter in network.layers[-1].parameters():
            parameter.mul_(NEAR_ZERO)
    return network
