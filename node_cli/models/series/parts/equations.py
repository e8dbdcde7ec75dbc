"""Equations that have a name: what they say, their parameters, and the states that they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from node_cli.models.series.parts.parameters import Parameter

Values = Mapping[str, Tensor]
# A time in the user's unit (0-dim or `(n, 1)`), a state `(n, S)` and parameters in the user's units: its slope.
Slope = Callable[[Tensor, Tensor, Values], Tensor]


class Scale(NamedTuple):
    """What the data are like: their channels, how large each typically is, and the inverse of the scale of time."""

    names: tuple[str, ...]
    sizes: list[float]
    rate: float


@dataclass(frozen=True)
class Equations:
    """Differential equations in the user's units.

    Attributes:
        states: the names of the parts of the state.
        sizes: how large each is, typically.
        observed: which part each channel is.
        slope: the right-hand side.
        parameters: by name.
        lines: how they are written, one for each part, with `{alpha}` where the parameter alpha stands.
        complete: makes observed parts `(n, C)` a whole state `(n, S)`.
    """

    states: tuple[str, ...]
    sizes: list[float]
    observed: tuple[int, ...]
    slope: Slope
    parameters: Mapping[str, Parameter]
    lines: tuple[str, ...]
    complete: Callable[[Tensor, Values], Tensor] = lambda observed, _: observed


def _lotka_volterra(scale: Scale) -> Equations:
    """Prey and predator: dx/dt = alpha x - beta x y, dy/dt = delta x y - gamma y; they start in equilibrium."""
    _require_channels("lotka_volterra", scale, 2)
    (x, y), (prey, predator), rate = scale.sizes, scale.names, scale.rate

    def slope(t: Tensor, state: Tensor, p: Values) -> Tensor:
        x, y = state.unbind(-1)
        return torch.stack([x * (p["alpha"] - p["beta"] * y), y * (p["delta"] * x - p["gamma"])], dim=-1)

    starts = {"alpha": rate, "beta": rate / y, "gamma": rate, "delta": rate / x}
    return Equations(
        states=scale.names,
        sizes=scale.sizes,
        observed=(0, 1),
        slope=slope,
        parameters={name: Parameter(start, low=0.0) for name, start in starts.items()},
        lines=(
            f"{{alpha}} {prey} - {{beta}} {prey} {predator}",
            f"{{delta}} {prey} {predator} - {{gamma}} {predator}",
        ),
    )


def _sir(scale: Scale) -> Equations:
    """Kermack and McKendrick: dS/dt = -beta S I / N, dI/dt = beta S I / N - gamma I, dR/dt = gamma I.

    One channel is I, with S = N - I and R = 0 at the start; three are S, I and R.
    """
    if len(scale.names) not in (1, 3):
        raise ValueError(f"equations=sir needs one channel (I) or three (S, I, R), got {', '.join(scale.names)}")
    is_partial = len(scale.names) == 1
    names = ("S", scale.names[0], "R") if is_partial else scale.names

    def slope(t: Tensor, state: Tensor, p: Values) -> Tensor:
        s, i, _ = state.unbind(-1)
        infected, removed = p["beta"] * s * i / p["population"], p["gamma"] * i
        return torch.stack([-infected, infected - removed, removed], dim=-1)

    def complete(observed: Tensor, p: Values) -> Tensor:
        if not is_partial:
            return observed
        infected = observed[:, 0]
        return torch.stack([p["population"] - infected, infected, torch.zeros_like(infected)], dim=-1)

    s, i = names[:2]
    flow = f"{{beta}} {s} {i} / {{population}}"
    return Equations(
        states=names,
        sizes=[4 * scale.sizes[0], scale.sizes[0], 4 * scale.sizes[0]] if is_partial else scale.sizes,
        observed=(1,) if is_partial else (0, 1, 2),
        slope=slope,
        parameters={
            "beta": Parameter(2 * scale.rate, low=0.0),
            "gamma": Parameter(scale.rate, low=0.0),
            "population": Parameter(None, low=0.0),
        },
        lines=(f"-{flow}", f"{flow} - {{gamma}} {i}", f"{{gamma}} {i}"),
        complete=complete,
    )


def _pendulum(scale: Scale) -> Equations:
    """Angle q and momentum p: dq/dt = mobility p, dp/dt = -torque sin q - damping p; without damping at first.

    With an angular velocity in the place of p, the mobility is 1: hold it fixed.
    """
    _require_channels("pendulum", scale, 2)
    (q, p), (angle, momentum), rate = scale.sizes, scale.names, scale.rate

    def slope(t: Tensor, state: Tensor, values: Values) -> Tensor:
        q, p = state.unbind(-1)
        return torch.stack([values["mobility"] * p, -values["torque"] * q.sin() - values["damping"] * p], dim=-1)

    return Equations(
        states=scale.names,
        sizes=scale.sizes,
        observed=(0, 1),
        slope=slope,
        parameters={
            "mobility": Parameter(rate * q / p, low=0.0),
            "torque": Parameter(rate * p / q, low=0.0),
            "damping": Parameter(0.0, step=rate),
        },
        lines=(f"{{mobility}} {momentum}", f"-{{torque}} sin({angle}) - {{damping}} {momentum}"),
    )


def _van_der_pol(scale: Scale) -> Equations:
    """Van der Pol's oscillator: dx/dt = y, dy/dt = mu (1 - x^2) y - x."""
    _require_channels("van_der_pol", scale, 2)
    x_name, y_name = scale.names

    def slope(t: Tensor, state: Tensor, p: Values) -> Tensor:
        x, y = state.unbind(-1)
        return torch.stack([y, p["mu"] * (1 - x * x) * y - x], dim=-1)

    return Equations(
        states=scale.names,
        sizes=scale.sizes,
        observed=(0, 1),
        slope=slope,
        parameters={"mu": Parameter(1.0, low=0.0)},
        lines=(y_name, f"{{mu}} (1 - {x_name}^2) {y_name} - {x_name}"),
    )


def _linear(scale: Scale) -> Equations:
    """dy/dt = a y + b, with numbers `a_1_2`, `b_1`: all 0 at first."""
    numbers = range(1, len(scale.names) + 1)
    sizes, rate = scale.sizes, scale.rate
    matrix = {f"a_{i}_{j}": Parameter(0.0, step=rate * sizes[i - 1] / sizes[j - 1]) for i in numbers for j in numbers}
    offset = {f"b_{i}": Parameter(0.0, step=rate * sizes[i - 1]) for i in numbers}

    def slope(t: Tensor, state: Tensor, p: Values) -> Tensor:
        a = torch.stack([p[name] for name in matrix]).view(len(sizes), len(sizes))
        b = torch.stack([p[name] for name in offset])
        return torch.addmm(b, state, a.T)

    return Equations(
        states=scale.names,
        sizes=sizes,
        observed=tuple(range(len(sizes))),
        slope=slope,
        parameters=matrix | offset,
        lines=tuple(
            " + ".join([*(f"{{a_{i}_{j}}} {name}" for j, name in zip(numbers, scale.names, strict=True)), f"{{b_{i}}}"])
            for i in numbers
        ),
    )


EQUATIONS: dict[str, Callable[[Scale], Equations]] = {
    "lotka_volterra": _lotka_volterra,
    "sir": _sir,
    "pendulum": _pendulum,
    "van_der_pol": _van_der_pol,
    "linear": _linear,
}


def _require_channels(name: str, scale: Scale, number: int) -> None:
    if len(scale.names) != number:
        raise ValueError(f"equations={name} needs {number} channels, got {len(scale.names)} ({', '.join(scale.names)})")
