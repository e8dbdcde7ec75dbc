"""The vector field of equations that are known, up to their parameters, and perhaps up to a rest that is learned."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from node_cli.models.requirements import choose
from node_cli.models.series.parts.equations import EQUATIONS, Equations, Scale, Values
from node_cli.models.series.parts.ode_series import Dynamics, Trajectory
from node_cli.models.series.parts.parameters import Parameter, Parameters, chosen
from node_cli.models.series.parts.printing import filled
from node_cli.models.series.parts.units import InputUnits, StateUnits, typical_sizes
from node_cli.series import Units

HIDDEN = "start_"  # before the name of a part of the state that is not observed: its starting value


class KnownDynamics(Dynamics):
    """Equations in the user's units; the state is each part divided by its typical size.

    Args:
        equations: what they are.
        parameters: of them.
        units: of the state and its channels.
        time_name: for `equations()`.
        inputs: of the equations; without any they take none.
        rest: a network of `(t, y, inputs)`, the scaled state and inputs, that is added to the scaled slope.
        rest_penalty: the weight of its mean square along a trajectory.
    """

    def __init__(
        self,
        equations: Equations,
        parameters: Parameters,
        units: StateUnits,
        time_name: str,
        inputs: InputUnits,
        rest: nn.Module | None = None,
        rest_penalty: float = 0.0,
    ) -> None:
        super().__init__()
        self.of = equations
        self.parameter_values = parameters
        self.units = units
        self.inputs = inputs
        self.rest = rest
        self.rest_penalty = rest_penalty
        self.time_name = time_name or "t"
        self.num_states = len(equations.states)
        self.is_observed = len(equations.observed) == len(equations.states)
        self.needs_trajectory = rest is not None and rest_penalty > 0

    def forward(self, t: Tensor, y: Tensor, inputs: Tensor | None = None) -> Tensor:
        """See `Dynamics.forward`."""
        given = [self.inputs(inputs)] if inputs is not None and self.inputs.num_inputs else []
        slope = self.of.slope(self.units.of.times(t), y * self.units.size, self.parameter_values(), *given)
        dy = slope * self.units.rate
        return dy if self.rest is None else dy + self.rest(t, y, inputs)

    def initial(self, values: Tensor, slopes: Tensor, extra: Tensor) -> Tensor:
        """The observed parts are the values; the others follow from them, or are learned."""
        return self.of.complete(self.units.raised(values), self.parameter_values()) / self.units.size

    def values(self, y: Tensor) -> Tensor:
        """See `Dynamics.values`."""
        return self.units.values(y)

    def value_slopes(self, y: Tensor, dy: Tensor) -> Tensor:
        """See `Dynamics.value_slopes`."""
        return self.units.value_slopes(y, dy)

    def observed(self, y: Tensor, values: Tensor, mask: Tensor, slopes: Tensor) -> Tensor:
        """See `Dynamics.observed`; parts that are not observed stay."""
        return self.units.observed(y, values, mask)

    def penalty(self, trajectory: Trajectory | None) -> Tensor | None:
        """Of the rest: its mean square at the times of a trajectory, padding left out."""
        if trajectory is None or self.rest is None:
            return None
        times, states, inputs = trajectory
        flat = None if inputs is None else inputs.flatten(0, 1)
        share: Tensor = self.rest(times.reshape(-1, 1), states.flatten(0, 1), flat).square().mean(1).view(times.shape)
        is_new = torch.cat([torch.ones_like(times[:, :1], dtype=torch.bool), times.diff(dim=1) > 0], dim=1)
        return self.rest_penalty * (share * is_new).sum() / is_new.sum()

    def named_values(self) -> Mapping[str, Tensor]:
        """The parameters that are trained."""
        return self.parameter_values.named_values()

    def equations(self) -> list[str]:
        """One line for each part of the state."""
        values = {name: value.item() for name, value in self.parameter_values().items()}
        more = "" if self.rest is None else " + network"
        return [
            f"d{state}/d{self.time_name} = {filled(line, values)}{more}"
            for state, line in zip(self.of.states, self.of.lines, strict=True)
        ]


def known_dynamics(
    *,
    equations: str | Callable[..., Tensor],
    parameters: Mapping[str, float] | None,
    bounds: Mapping[str, Sequence[float | None]] | None,
    fixed: Mapping[str, float] | None,
    hidden: Mapping[str, float] | None,
    channel_names: Sequence[str],
    units: Units,
    time_name: str,
    inputs: InputUnits,
    rest: Callable[[int], nn.Module] | None = None,
    rest_penalty: float = 0.0,
) -> KnownDynamics:
    """What the keys of `known` describe, for data of these channels; `rest` is called with the size of the state.

    Raises:
        ValueError: there are no such equations, the data do not go with them, or a key is out of range.
    """
    hidden = hidden or {}
    names = (*channel_names, *hidden)
    if len(set(names)) < len(names):
        raise ValueError(f"hidden must not name a channel ({', '.join(channel_names)}), got {', '.join(hidden)}")
    sizes = [*typical_sizes(units), *(abs(start) or 1.0 for start in hidden.values())]
    scale = Scale(names, sizes, 1 / units.time_scale)
    if isinstance(equations, str):
        if inputs.num_inputs:
            raise ValueError(
                f"equations={equations} takes no controls and no statics, and the dataset has some: leave them out, or "
                "give a function of (t, y, parameters, inputs)"
            )
        described = choose("equations", equations, EQUATIONS)(scale)
    else:
        described = _own(equations, scale, parameters or {}, has_inputs=inputs.num_inputs > 0)
    if hidden:
        described = _with_hidden(described, hidden, len(channel_names), sizes)
    values = chosen(described.parameters, parameters, bounds, fixed)
    state_units = StateUnits(described.sizes, described.observed, units)
    made = None if rest is None else rest(len(described.states))
    dynamics = KnownDynamics(described, values, state_units, time_name, inputs, made, rest_penalty)
    if not isinstance(equations, str):
        _try(dynamics, equations)
    return dynamics


def _own(function: Callable[..., Tensor], scale: Scale, starts: Mapping[str, float], *, has_inputs: bool) -> Equations:
    """Equations that a function of the user's own describes; its parameters are those that have a starting value."""
    if not callable(function):
        raise ValueError(f"equations must be one of {', '.join(EQUATIONS)}, or a function, got {function}")
    wanted = ("t", "y", "parameters", "inputs") if has_inputs else ("t", "y", "parameters")
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(needed) != len(wanted):
        raise ValueError(f"equations must be a function of ({', '.join(wanted)}), got one of {len(needed)} arguments")
    name = getattr(function, "__name__", None) or getattr(getattr(function, "func", None), "__name__", "f")
    told = ", ".join(f"{parameter} = {{{parameter}}}" for parameter in starts)
    return Equations(
        states=scale.names,
        sizes=scale.sizes,
        observed=tuple(range(len(scale.names))),
        slope=function,
        parameters={parameter: Parameter(float(start), step=abs(start) or 1.0) for parameter, start in starts.items()},
        lines=tuple(f"{name}(t, y)[{i}], {told}" for i in range(len(scale.names))),
    )


def _with_hidden(equations: Equations, hidden: Mapping[str, float], num_channels: int, sizes: list[float]) -> Equations:
    """The same with parts of the state, the last ones, that are not observed."""
    names = [HIDDEN + name for name in hidden]
    starts = zip(names, hidden.values(), sizes[num_channels:], strict=True)

    def complete(observed: Tensor, values: Values) -> Tensor:
        rest = torch.stack([values[name] for name in names]).to(observed.dtype)
        return torch.cat([observed, rest.expand(len(observed), -1)], dim=1)

    return replace(
        equations,
        observed=tuple(range(num_channels)),
        parameters={**equations.parameters, **{name: Parameter(start, step=size) for name, start, size in starts}},
        complete=complete,
    )


def _try(dynamics: KnownDynamics, function: object) -> None:
    """Raises ValueError where a function of the user's own does not give a slope."""
    y = torch.ones(2, dynamics.num_states)
    given = [torch.zeros(2, dynamics.inputs.num_inputs)] if dynamics.inputs.num_inputs else []
    try:
        with torch.no_grad():
            slope = dynamics.of.slope(torch.zeros(()), y, dynamics.parameter_values(), *given)
    except KeyError as error:
        raise ValueError(
            f"parameters must give a starting value to {error.args[0]}, which the equations use"
        ) from error
    if not isinstance(slope, Tensor) or slope.shape != y.shape:
        got = tuple(slope.shape) if isinstance(slope, Tensor) else type(slope).__name__
        raise ValueError(f"equations must return a tensor of the shape of y, {tuple(y.shape)}, got {got}")
