"""Equations with parameters, instead of a network: the parameters are what is learned."""

from __future__ import annotations

from typing import Any

from node_cli.models.series.parts.known_dynamics import known_dynamics
from node_cli.models.series.parts.ode_series import OdeSeries
from node_cli.models.series.parts.units import InputUnits, Scaled
from node_cli.ode.base import Solver
from node_cli.ode.gradients import Gradient
from node_cli.series import Units


class Known(OdeSeries):
    """Series `(n, T, C)` as solutions of known equations in the user's units, whose parameters are learned.

    Args:
        equations: a name, or a function of `(t, y, parameters)` that maps a time in the user's unit (0-dim, or one for
            each sample `(n, 1)`), a state `(n, S)` and parameters by name (0-dim tensors) to dy/dt `(n, S)`. Where the
            dataset has controls or statics it is a function of `(t, y, parameters, inputs)`, inputs `(n, k + s)`.
        parameters: starting values by name; null: those that come with the equations.
        bounds: a pair of numbers by name, null for none; positive parameters of named equations stay positive.
        fixed: parameters that are not trained, with their values.
        hidden: parts of the state that are not observed, after the channels, with starting values, which are learned.

    Raises:
        ValueError: a key is out of range, nothing is left to train, or the data do not go with the equations.
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
        control_scaling: Scaled | None,
        static_scaling: Scaled | None,
        solver: Solver,
        gradient: Gradient,
        equations: Any,
        parameters: dict[str, float] | None,
        bounds: dict[str, list[float | None]] | None,
        fixed: dict[str, float] | None,
        hidden: dict[str, float] | None,
        start: str,
        encoder_width: int,
        controls_between: str,
    ) -> None:
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
                inputs=InputUnits((num_controls, control_scaling), (num_statics, static_scaling)),
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
        if not any(parameter.numel() for parameter in self.parameters()):
            raise ValueError(
                f"fixed leaves nothing to train, got {fixed}: leave a parameter out of it, or take model.start=learned"
            )
