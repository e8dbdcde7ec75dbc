"""How a study is run: the keys of `tune` but for the search space. Needs no Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_cli.config import ConfigError, is_path, shown
from node_cli.runs.report.filters import ALIASES
from node_cli.tuning.search_space import MOST_VALUES

STUDIES = Path("outputs/studies")
SAMPLERS, PRUNERS = ("tpe", "random", "grid"), ("none", "median", "halving")


@dataclass(frozen=True)
class Objective:
    """A figure of a run, as `node-report` names it; the less the better, or the more."""

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
    settings = Settings(**{**values, "objectives": [_objective(text) for text in asked or []]})
    problems = [
        *_not_a_name(settings.name),
        *_no_storage(settings.storage),
        *_out_of_range(tune),
        *_unknown(tune),
        *_bad_objectives(settings, asked or []),
    ]
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


def _not_a_name(name: Any) -> list[str]:
    """A data base knows a study by this name alone: `a`, `a/` and `./a` would be three, in one folder."""
    parts = Path(str(name)).parts
    sound = is_path(name) and parts and not {"..", "/"} & set(parts) and name == name.strip() == str(Path(name))
    return [] if sound else [f"tune.name must be the name of a folder, as mine or lab/mine, got {name!r}"]


def _no_storage(storage: Any) -> list[str]:
    if storage is not None and not (isinstance(storage, str) and storage.strip()):
        return [f"tune.storage must be null or a URL, sqlite:///studies.db say, got {storage!r}"]
    return []


def _out_of_range(tune: Mapping[str, Any]) -> list[str]:
    least = {"trials": 1, "workers": 1, "startup_trials": 0, "warmup_epochs": 0, "seed": 0, "max_retries": 0}
    least |= {"lost_after": 60}  # a living machine gives a sign every 15 seconds
    return [
        f"tune.{key} must be a whole number, {low} or more, got {tune[key]!r}"
        for key, low in least.items()
        if type(tune[key]) is not int or tune[key] < low
    ]


def _unknown(tune: Mapping[str, Any]) -> list[str]:
    return [
        f"tune.{key} must be one of {', '.join(allowed)}, got {tune[key]!r}"
        for key, allowed in (("sampler", SAMPLERS), ("pruner", PRUNERS))
        if tune[key] not in allowed
    ]


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
            f"tune.pruner={settings.pruner} compares one figure of validation (val/...) after each epoch, not "
            f"{', '.join(names)}: name one alone, or set tune.pruner=none"
        )
    return problems
