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
        node = {"choices": node} if isinstance(node, list) else node
        wrong = (
            ("" if KEY.fullmatch(str(key)) else "it is no config key")
            or _misspelt(key, space)
            or _what_is_wrong(node)
            or _what_is_wrong_with_when(node.get("when") or {}, parameters, list(space))
        )
        if wrong:
            problems.append(f"tune.space: {key}: {wrong}")
            continue
        when = {name: value if isinstance(value, list) else [value] for name, value in (node.get("when") or {}).items()}
        parameters.append(Parameter(key, **{**node, "log": bool(node.get("log")), "when": when}))
    if problems:
        raise ConfigError("\n".join(problems))
    return SearchSpace(parameters)


def _misspelt(key: str, space: Mapping[str, Any]) -> str:
    """`optimizer.lr.lwo`, beside the range of `optimizer.lr`."""
    parent, _, last = key.rpartition(".")
    if not isinstance(space.get(parent), dict):
        return ""
    return f"{last} is not a key of {parent}: there are {', '.join(RANGE)}"


def _what_is_wrong(node: Any) -> str:
    if not isinstance(node, dict) or not ("choices" in node or {"low", "high"} <= set(node)):
        return f"write {{low: ..., high: ...}} or a list of choices, got {node!r}"
    allowed = CHOICES if "choices" in node else RANGE
    unknown = [name for name in node if name not in allowed]
    if unknown:
        return f"{unknown[0]} is not allowed here: there are {', '.join(allowed)}"
    return _what_is_wrong_with_choices(node["choices"]) if "choices" in node else _what_is_wrong_with_range(node)


def _what_is_wrong_with_choices(choices: Any) -> str:
    plain = isinstance(choices, list) and all(isinstance(c, (str, int, float, type(None))) for c in choices)
    if not plain or not choices or len(set(map(repr, choices))) < len(choices):
        return f"choices must be different plain values, one or more, got {choices!r}"
    return ""


def _what_is_wrong_with_range(node: Mapping[str, Any]) -> str:
    low, high, step, log = node["low"], node["high"], node.get("step"), node.get("log")
    for name in ("low", "high", "step"):
        value = node.get(name)
        if (name in node and value is None) or isinstance(value, (bool, str, list, dict)):
            return f"{name} must be a number, got {value!r}"
    if low >= high:
        return f"low must be less than high, got {low} and {high}"
    if log is not None and not isinstance(log, bool):
        return f"log must be true or false, got {log!r}"
    if log and (low <= 0 or step is not None):
        return f"a range with log starts above 0 and has no step, got {dict(node)}"
    if step is not None and not 0 < step <= high - low:
        return f"step must be positive and no more than high - low, got {step}"
    return ""


def _what_is_wrong_with_when(when: Any, before: Sequence[Parameter], keys: Sequence[str]) -> str:
    if not isinstance(when, dict):
        return f"when must be {{key: value}}, got {when!r}"
    known = {parameter.key: parameter for parameter in before}
    for key, values in when.items():
        if key not in keys:
            return f"when names {key}, which is not searched: there are {', '.join(keys)}"
        if key not in known:
            return f"when names {key}, which must stand before it, and be sound"
        allowed = known[key].values
        for value in values if isinstance(values, list) else [values]:
            if allowed is None or value not in allowed:
                return f"when: {key} is never {value!r}" + (f", but {', '.join(map(str, allowed))}" if allowed else "")
    return ""
