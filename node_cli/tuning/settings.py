"""How a study is run: the keys of `tune` but for the search space. Needs no Optuna."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from node_cli.config import ConfigError, is_path, shown
from node_cli.runs.report.filters import ALIASES
from node_cli.tuning.search_space import MOST_VALUES

STUDIES = Path("outputs/studies")
# A living machine gives a sign every 15 seconds: `lost_after` is longer than a few of them.
LEAST = {
    **dict.fromkeys(("trials", "workers"), 1),
    **dict.fromkeys(("startup_trials", "warmup_epochs", "seed", "max_retries"), 0),
    "lost_after": 60,
}


def _is_name(name: Any) -> bool:
    """A data base knows a study by this name alone: `a`, `a/` and `./a` would be three, in one folder."""
    parts = Path(str(name)).parts
    return bool(is_path(name) and parts and not {"..", "/"} & set(parts) and name == name.strip() == str(Path(name)))


def _is_at_least(least: int, value: Any) -> bool:
    return type(value) is int and value >= least


# For each key what it must be, in words, and whether a value is that.
RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("the name of a folder, as mine or lab/mine", _is_name),
    "storage": (
        "null or a URL, sqlite:///studies.db say",
        lambda value: value is None or (isinstance(value, str) and bool(value.strip())),
    ),
    **{key: (f"a whole number, {least} or more", partial(_is_at_least, least)) for key, least in LEAST.items()},
    "sampler": ("one of tpe, random, grid", lambda value: value in ("tpe", "random", "grid")),
    "pruner": ("one of none, median, halving", lambda value: value in ("none", "median", "halving")),
}


@dataclass(frozen=True)
class Objective:
    """A value of a run, as `node-report` names it; the less the better, or the more."""

    metric: str
    maximize: bool

    @property
    def column(self) -> str:
        """Its full name."""
        return ALIASES.get(self.metric, self.metric)


@dataclass(frozen=True)
class Settings:
    """The keys of `tune`, under their names; no objectives stand for the task's own, until it is known."""

    name: str
    objectives: list[Objective]
    trials: int
    workers: int
    sampler: str
    pruner: str
    startup_trials: int
    warmup_epochs: int
    seed: int
    max_retries: int
    lost_after: int
    storage: str | None

    @property
    def path(self) -> Path:
        """The study's folder."""
        return STUDIES / self.name

    @property
    def prunes(self) -> bool:
        """Whether trials may end before their last epoch."""
        return self.pruner != "none"


def read_settings(tune: Mapping[str, Any], endless: list[str]) -> Settings:
    """`tune` without its space; `endless` are the keys that have too many values for a grid.

    Raises:
        ConfigError: a line for each value that cannot be.
    """
    values = {key: value for key, value in tune.items() if key != "space"}
    asked = tune["objectives"]
    if asked is not None and not (isinstance(asked, list) and asked):
        raise ConfigError(
            f"tune.objectives must be null (the task's own) or a list of metrics, as [val/loss], got {shown(asked)}"
        )
    problems = [
        f"tune.{key} must be {what}, got {tune[key]!r}" for key, (what, holds) in RULES.items() if not holds(tune[key])
    ]
    settings = Settings(**{**values, "objectives": [_objective(text) for text in asked or []]})
    problems += _bad_objectives(settings, asked or [])
    if settings.sampler == "grid" and endless:
        problems.append(
            f"tune.sampler=grid needs choices, whole numbers or a step, {MOST_VALUES:,} values at most: "
            f"set them for {', '.join(endless)}"
        )
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def _objective(text: Any) -> Objective:
    first, _, rest = str(text).partition(" ")
    return Objective(rest.strip(), maximize=True) if first == "max" else Objective(str(text), maximize=False)


def _bad_objectives(settings: Settings, asked: list[Any]) -> list[str]:
    names = [objective.metric for objective in settings.objectives]
    if len(set(names)) < len(names):
        return [f"tune.objectives must be different metrics, got {names}"]
    problems = [
        f"tune.objectives: write NAME (the less the better) or max NAME, val/loss say, got {text!r}"
        for text, name in zip(asked, names, strict=True)
        if len(name.split()) != 1
    ]
    problems += [
        f"tune.objectives: {name} is for the end, once: search by val/{name.partition('/')[2]}"
        for name in names
        if name.startswith("test/")
    ]
    if settings.prunes and names and not problems and (len(names) > 1 or not names[0].startswith("val/")):
        problems.append(
            f"tune.pruner={settings.pruner} compares one metric of validation (val/...) after each epoch, not "
            f"{', '.join(names)}: name one alone, or set tune.pruner=none"
        )
    return problems
