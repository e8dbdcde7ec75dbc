"""What is searched: parameters by config key, and every combination of their values. Needs no Optuna itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from node_cli.config import ConfigError

if TYPE_CHECKING:
    import optuna

KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
RANGE, CHOICES = ("low", "high", "log", "step", "when"), ("choices", "when")
MOST_VALUES = 10_000  # of one key in a grid
Params = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One config key: `choices`, or a range from `low` to `high`, of whole numbers if its bounds are such.

    `when` names values of parameters before it; with others this key is not asked for.
    """

    key: str
    when: Mapping[str, Sequence[Any]]
    choices: Sequence[Any] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None

    def is_asked_for(self, params: Params) -> bool:
        """Whether it has a part beside these values."""
        return all(key in params and params[key] in values for key, values in self.when.items())

    def suggest(self, trial: optuna.Trial) -> Any:
        """The value that a trial has, or draws."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self._is_whole:
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(self.key, int(self.low), int(self._last), step=step, log=self.log)
        return trial.suggest_float(self.key, self.low, self._last, step=self.step, log=self.log)

    @property
    def edges(self) -> Sequence[Any]:
        """The values that show whether the key can take what the range or the choices hold."""
        return self.choices or (self.low + 0 * (self.step or 0), self._last)

    @property
    def values(self) -> Sequence[Any] | None:
        """All there are; None: too many for a grid."""
        if self.choices:
            return self.choices
        step = 1 if self._is_whole and self.step is None else self.step
        if step is None or (self.high - self.low) / step >= MOST_VALUES:
            return None
        return [self.low + number * step for number in range(self._steps(step) + 1)]

    @property
    def _last(self) -> float:
        """The greatest value, which the steps may not come to `high` for."""
        return self.high if self.step is None else self.low + self._steps(self.step) * self.step

    def _steps(self, step: float) -> int:
        return int((self.high - self.low) / step + 1e-9)

    @property
    def _is_whole(self) -> bool:
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 0))


@dataclass(frozen=True)
class SearchSpace:
    """The parameters, each after those that its `when` names."""

    parameters: Sequence[Parameter]

    @property
    def keys(self) -> list[str]:
        """The config keys."""
        return [parameter.key for parameter in self.parameters]

    @property
    def endless(self) -> list[str]:
        """The keys that have too many values for a grid."""
        return [parameter.key for parameter in self.parameters if parameter.values is None]

    def suggest(self, trial: optuna.Trial) -> Params:
        """The values that a trial has, or draws."""
        params: Params = {}
        for parameter in self.parameters:
            if parameter.is_asked_for(params):
                params[parameter.key] = parameter.suggest(trial)
        return params

    def combinations(self, params: Params | None = None) -> Iterator[Params]:
        """Every combination, of a space without endless ranges; those that begin with `params`."""
        params = params or {}
        rest = [each for each in self.parameters if each.key not in params and each.is_asked_for(params)]
        if not rest:
            yield params
            return
        for value in rest[0].values or ():
            yield from self.combinations({**params, rest[0].key: value})

    def examples(self) -> Iterator[Params]:
        """A few combinations, in which every choice and both ends of every range occur, or at least one of them."""
        seen: set[str] = set()
        for row in range(max(len(parameter.edges) for parameter in self.parameters)):
            params: Params = {}
            for parameter in self.parameters:
                if parameter.is_asked_for(params):
                    params[parameter.key] = parameter.edges[min(row, len(parameter.edges) - 1)]
            seen |= set(params)
            yield params
        for parameter in self.parameters:
            if parameter.key not in seen:
                yield {**self._asking_for(parameter), parameter.key: parameter.edges[0]}

    def _asking_for(self, parameter: Parameter) -> Params:
        params: Params = {}
        for key, values in parameter.when.items():
            earlier = next(other for other in self.parameters if other.key == key)
            params |= {**self._asking_for(earlier), key: values[0]}
        return params


def identity(params: Params) -> tuple[tuple[str, str], ...]:
    """The same for the same values: numbers are compared by twelve digits."""
    return tuple(sorted((key, f"{v:.12g}" if type(v) in (int, float) else repr(v)) for key, v in params.items()))


def shown(params: Params) -> Params:
    """For a reader: numbers by four digits."""
    return {key: float(f"{value:.4g}") if type(value) is float else value for key, value in params.items()}


def parse(space: Mapping[str, Any]) -> SearchSpace:
    """The search space that YAML describes; a key with null is not searched.

    Raises:
        ConfigError: a line for each parameter that is none.
    """
    space = {key: node for key, node in space.items() if node is not None}
    problems = [] if space else ["tune.space is empty: name a config key and its range"]
    parameters: list[Parameter] = []
    for key, node in space.items():
        try:
            parameters.append(_parameter(key, {"choices": node} if isinstance(node, list) else node, space, parameters))
        except ValueError as error:
            problems.append(f"tune.space: {key}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return SearchSpace(parameters)


def _parameter(key: str, node: Any, space: Mapping[str, Any], before: Sequence[Parameter]) -> Parameter:
    """Raises ValueError for what cannot be."""
    if not KEY.fullmatch(str(key)):
        raise ValueError("it is no config key")
    parent, _, last = key.rpartition(".")
    if isinstance(space.get(parent), dict):  # `optimizer.lr.lwo`, beside the range of `optimizer.lr`
        raise ValueError(f"{last} is not a key of {parent}: there are {', '.join(RANGE)}")
    if not isinstance(node, dict) or not ("choices" in node or {"low", "high"} <= set(node)):
        raise ValueError(f"write {{low: ..., high: ...}} or a list of choices, got {node!r}")
    allowed = CHOICES if "choices" in node else RANGE
    unknown = [name for name in node if name not in allowed]
    if unknown:
        raise ValueError(f"{unknown[0]} is not allowed here: there are {', '.join(allowed)}")
    if "choices" in node:
        _check_choices(node["choices"])
    else:
        _check_range(node)
    when = node.get("when") or {}
    if not isinstance(when, dict):
        raise ValueError(f"when must be {{key: value}}, got {when!r}")
    when = {name: value if isinstance(value, list) else [value] for name, value in when.items()}
    _check_when(when, {parameter.key: parameter for parameter in before}, list(space))
    return Parameter(key, **{**node, "log": bool(node.get("log")), "when": when})


def _check_choices(choices: Any) -> None:
    plain = isinstance(choices, list) and all(isinstance(c, (str, int, float, type(None))) for c in choices)
    if not plain or not choices or len(set(map(repr, choices))) < len(choices):
        raise ValueError(f"choices must be different plain values, one or more, got {choices!r}")


def _check_range(node: Mapping[str, Any]) -> None:
    low, high, step, log = node["low"], node["high"], node.get("step"), node.get("log")
    for name in ("low", "high", "step"):
        value = node.get(name)
        if (name in node and value is None) or isinstance(value, (bool, str, list, dict)):
            raise ValueError(f"{name} must be a number, got {value!r}")
    if low >= high:
        raise ValueError(f"low must be less than high, got {low} and {high}")
    if log is not None and not isinstance(log, bool):
        raise ValueError(f"log must be true or false, got {log!r}")
    if log and (low <= 0 or step is not None):
        raise ValueError(f"a range with log starts above 0 and has no step, got {dict(node)}")
    if step is not None and not 0 < step <= high - low:
        raise ValueError(f"step must be positive and no more than high - low, got {step}")


def _check_when(when: Mapping[str, Sequence[Any]], known: Mapping[str, Parameter], keys: Sequence[str]) -> None:
    for key, values in when.items():
        if key not in keys:
            raise ValueError(f"when names {key}, which is not searched: there are {', '.join(keys)}")
        if key not in known:
            raise ValueError(f"when names {key}, which must stand before it, and be sound")
        allowed = known[key].values
        for value in values:
            if allowed is None or value not in allowed:
                others = f", but {', '.join(map(str, allowed))}" if allowed else ""
                raise ValueError(f"when: {key} is never {value!r}{others}")
