"""Parameters of equations: numbers in the user's units, kept within their bounds, or held fixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

INF = math.inf


@dataclass(frozen=True)
class Parameter:
    """A parameter in the user's units: its starting value, what it lies between, and how far a step of 1 moves it.

    The last one matters only without bounds. At the starting value the trained number is 0; without one (None), the
    user has to give it.
    """

    start: float | None
    low: float = -INF
    high: float = INF
    step: float = 1.0

    @property
    def transform(self) -> tuple[str, float, float, float]:
        """The value of a trained number x: `a + b f(x + c)`, as the name of f, and a, b, c."""
        assert self.start is not None
        low, start, high = self.low, self.start, self.high
        if math.isfinite(low) and math.isfinite(high):
            share = (start - low) / (high - low)
            return "sigmoid", low, high - low, math.log(share / (1 - share))
        if math.isfinite(low):
            return "exp", low, start - low, 0.0
        if math.isfinite(high):
            return "exp", high, start - high, 0.0
        return "identity", start, self.step, 0.0


FUNCTIONS = {"identity": lambda x: x, "exp": torch.exp, "sigmoid": torch.sigmoid}


class Parameters(nn.Module):
    """Trained and fixed parameters by name; called, it gives their values.

    Trained numbers lie in `raw`, those with the same transform next to each other: few operations for many parameters.
    """

    raw: Tensor
    constants: Tensor
    fixed_values: Tensor

    def __init__(self, trained: Mapping[str, Parameter], fixed: Mapping[str, float]) -> None:
        super().__init__()
        self.names = list(trained)
        self.fixed = list(fixed)
        transforms = {name: parameter.transform for name, parameter in trained.items()}
        self._order = sorted(trained, key=lambda name: transforms[name][0])
        kinds = [transforms[name][0] for name in self._order]
        self._sizes = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
        self.raw = nn.Parameter(torch.zeros(len(trained)))
        constants = torch.tensor([transforms[name][1:] for name in self._order]).reshape(-1, 3).T
        self.register_buffer("constants", constants.contiguous(), persistent=False)
        self.register_buffer("fixed_values", torch.tensor(list(fixed.values())), persistent=False)

    def forward(self) -> dict[str, Tensor]:
        """All values, 0-dim, in the user's units; those that are trained have a graph."""
        return self.named_values() | dict(zip(self.fixed, self.fixed_values.unbind(), strict=True))

    def named_values(self) -> dict[str, Tensor]:
        """Those that are trained."""
        offset, factor, shift = self.constants
        parts = zip(self._sizes, (self.raw + shift).split(list(self._sizes.values())), strict=True)
        moved = [FUNCTIONS[kind](part) for kind, part in parts]
        values = offset + factor * (moved[0] if len(moved) == 1 else torch.cat(moved)) if moved else self.raw
        by_name = dict(zip(self._order, values.unbind(), strict=True))
        return {name: by_name[name] for name in self.names}


def chosen(
    offered: Mapping[str, Parameter],
    starts: Mapping[str, float] | None,
    bounds: Mapping[str, Sequence[float | None]] | None,
    fixed: Mapping[str, float] | None,
) -> Parameters:
    """What the keys `parameters`, `bounds` and `fixed` make of the parameters that equations have.

    Raises:
        ValueError: a key names none of them, a number is none, or a starting value is not within its bounds.
    """
    starts, bounds, fixed = starts or {}, bounds or {}, fixed or {}
    for key, given in (("parameters", starts), ("bounds", bounds), ("fixed", fixed)):
        if not isinstance(given, Mapping):
            raise ValueError(f"{key} must be a mapping of names, got {given}")
        unknown = [str(name) for name in given if name not in offered]
        if unknown:
            raise ValueError(f"{key} must name some of {', '.join(offered)}, got {', '.join(unknown)}")
    for key, numbers in (("parameters", starts), ("fixed", fixed)):
        for name, value in numbers.items():
            _require_number(f"{key}.{name}", value)
    twice = [name for name in fixed if name in starts or name in bounds]
    if twice:
        raise ValueError(f"fixed.{twice[0]} is not trained: leave it out of parameters and bounds")
    trained = {}
    for name, parameter in offered.items():
        if name in fixed:
            continue
        given_bounds = bounds.get(name)
        if given_bounds is not None:
            low, high = _pair(f"bounds.{name}", given_bounds)
            parameter = replace(parameter, low=low, high=high)
        start = float(starts[name]) if name in starts else _inside(name, parameter)
        parameter = replace(parameter, start=start)
        if not parameter.low < start < parameter.high:
            raise ValueError(f"parameters.{name} must be {_range(parameter)}, got {start:g}")
        trained[name] = parameter
    return Parameters(trained, {name: float(value) for name, value in fixed.items()})


def _inside(name: str, parameter: Parameter) -> float:
    """The starting value where none is given: the usual one, or one between bounds that leave it out."""
    low, start, high = parameter.low, parameter.start, parameter.high
    if start is None:
        raise ValueError(f"fixed must give {name}, or parameters a starting value to train it from: {{{name}: ...}}")
    if low < start < high:
        return start
    if math.isfinite(low) and math.isfinite(high):
        return (low + high) / 2
    return low + max(1.0, abs(low)) if math.isfinite(low) else high - max(1.0, abs(high))


def _range(parameter: Parameter) -> str:
    sides = (("above", parameter.low), ("below", parameter.high))
    return " and ".join(f"{side} {bound:g}" for side, bound in sides if math.isfinite(bound))


def _pair(key: str, bounds: Sequence[float | None]) -> tuple[float, float]:
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        raise ValueError(f"{key} must be two numbers, the first one smaller (null: no bound), got {bounds}")
    for bound in bounds:
        if bound is not None:
            _require_number(key, bound)
    low, high = bounds
    pair = (-INF if low is None else float(low), INF if high is None else float(high))
    if not pair[0] < pair[1]:
        raise ValueError(f"{key} must be two numbers, the first one smaller (null: no bound), got {bounds}")
    return pair


def _require_number(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{key} must be a number, got {value}")
