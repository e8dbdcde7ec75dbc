"""Groups of runs that differ only by their seed: mean and std of every number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from node_cli.config import follows, known_of
from node_cli.runs.report.filters import text
from node_cli.runs.report.reading import RunRecord, at_horizon, is_number

COSTS = ("parameters", "nfe/forward", "nfe/backward", "seconds.training", "memory.peak_mb")


@dataclass(frozen=True)
class Statistic:
    """Mean and sample std over `count` runs; one run has no std. `exact`: all have the same whole number.

    `low` and `high` are one std from the mean, but within the range of the runs: no error bar below zero.
    """

    mean: float
    std: float | None
    count: int
    exact: bool = False
    low: float = field(default=math.nan, compare=False)
    high: float = field(default=math.nan, compare=False)


@dataclass(frozen=True)
class Group:
    """Runs with the same values of the keys that they are grouped by."""

    keys: Mapping[str, Any]
    runs: Sequence[RunRecord]
    short: Mapping[str, str] = field(default_factory=dict)  # of keys whose values need fewer digits than they have

    def key_text(self, key: str) -> str | None:
        """The value of a key as it is shown; None where the runs have no such key."""
        return self.short.get(key, self.full_text(key))

    def full_text(self, key: str) -> str | None:
        """The value with all digits."""
        return _known(self.runs[0].values, key)

    def label(self) -> str:
        """The group as `key=value, ...`."""
        return ", ".join(f"{key}={self.key_text(key) or '-'}" for key in self.keys) or "all runs"

    def cell(self, column: str) -> Statistic | str | None:
        """What a table shows: a statistic, or the text that all runs share; None if no run has the value."""
        values = [run.values[column] for run in self.runs if run.values.get(column) is not None]
        numbers = [value for value in values if is_number(value)]
        if numbers or not values:
            if not numbers:
                return None
            found = statistic(numbers)
            is_measured = found.std != 0 or self.num_seeds > 1  # runs of one seed that agree say nothing of the std
            return found if is_measured else replace(found, std=None)
        different = sorted(set(map(text, values)))
        return different[0] if len(different) == 1 else f"{len(different)} different"

    def num_with(self, column: str) -> int:
        """How many of the runs have the value."""
        return sum(run.values.get(column) is not None for run in self.runs)

    @property
    def num_seeds(self) -> int:
        """The number of different seeds; each run without one counts as another."""
        seeds = [run.values.get("seed") for run in self.runs]
        return len({str(seed) for seed in seeds if seed is not None}) + seeds.count(None)

    @property
    def repeats_seeds(self) -> bool:
        """Whether runs share a seed though the groups are not by seed."""
        return "seed" not in self.keys and self.num_seeds < len(self.runs)


def statistic(values: Sequence[float]) -> Statistic:
    """Of one or more numbers; a number that is not finite makes the mean so, and there is no std."""
    count = len(values)
    exact = all(isinstance(value, int) for value in values) and len(set(values)) == 1
    mean = sum(map(float, values)) / count
    if count == 1 or not math.isfinite(mean):
        return Statistic(mean, None, count, exact, mean, mean)
    std = math.dist(values, [mean] * count) / math.sqrt(count - 1)
    low, high = max(mean - std, min(values)), min(mean + std, max(values))
    return Statistic(mean, std, count, exact, min(low, mean), max(high, mean))  # `mean` is rounded


def group_runs(runs: Sequence[RunRecord], keys: Sequence[str]) -> list[Group]:
    """One group for each combination of values that occurs, sorted by them; a missing value is None and comes last."""
    groups: dict[tuple[str | None, ...], list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(tuple(_known(run.values, key) for key in keys), []).append(run)
    short = {key: _short_texts([same[0].values.get(key) for same in groups.values()]) for key in keys}
    made = []
    for texts, same in groups.items():
        shown = {key: short[key][full] for key, full in zip(keys, texts, strict=True) if full in short[key]}
        made.append(Group({key: same[0].values.get(key) for key in keys}, same, shown))
    return sorted(made, key=lambda group: [_rank(value) for value in group.keys.values()])


def _short_texts(values: Sequence[Any]) -> dict[str, str]:
    """Each number that is not whole with as many digits, at least four, as tell all values apart."""
    full = {text(value): value for value in values}
    numbers = {name: value for name, value in full.items() if isinstance(value, float) and math.isfinite(value)}
    for digits in range(4, 17):
        short = {name: text(float(f"{value:.{digits}g}")) for name, value in numbers.items()}
        if len({short.get(name, name) for name in full}) == len(full):
            return short
    return {}


def _rank(value: Any) -> tuple[int, float, str]:
    if value is None:
        return (2, 0.0, "")
    return (0, float(value), "") if is_number(value) else (1, 0.0, text(value))


def sort_groups(groups: Sequence[Group], column: str, *, descending: bool) -> list[Group]:
    """By a key, the mean of a column, or `runs`; groups without it come last either way."""

    def value(group: Group) -> Any:
        if column == "runs":
            return len(group.runs)
        cell = group.keys[column] if column in group.keys else group.cell(column)
        if isinstance(cell, Statistic):
            return None if math.isnan(cell.mean) else cell.mean
        return cell

    without = [group for group in groups if value(group) is None]
    having = [group for group in groups if value(group) is not None]
    return sorted(having, key=lambda group: _rank(value(group)), reverse=descending) + without


def differing_keys(runs: Sequence[RunRecord]) -> list[str]:
    """The choices that differ, and the config keys that differ among runs of one choice; no seeds or folders.

    A key that only some choices have, or for which each has its own default, adds nothing to the choice; nor does a
    tolerance that follows another in all runs.
    """
    names = dict.fromkeys(name for run in runs for name in run.compared)
    groups = {name.partition(".")[0] for name in names if "." in name}
    first = runs[0].compared if runs else {}
    different = [  # values as they are: turning them into text would take most of the time of a report
        name
        for name in names
        if known_of(name).is_hyperparameter and name != "seed" and not name.rpartition(".")[2].startswith("_")
        if not all(name in run.compared and name in first and run.compared[name] == first[name] for run in runs)
    ]
    different = [name for name in different if not all(follows(name, r.compared) for r in runs if name in r.compared)]
    choices = [name for name in different if name in groups]
    return choices + [name for name in different if name not in groups and _differs_within_a_choice(runs, name)]


def parts_of(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """The runs of each task, or, where their metrics depend on the dataset, of each task and dataset; by a title."""
    metrics: dict[str | None, dict[str | None, set[str]]] = {}
    for run in runs:
        of_task = metrics.setdefault(_known(run.compared, "task"), {})
        of_task.setdefault(_known(run.compared, "dataset"), set()).update(run.summary.get("metrics", {}))
    parts: dict[str, list[RunRecord]] = {}
    for run in runs:
        of_task = metrics[_known(run.compared, "task")]
        are_alike = len(set(map(frozenset, of_task.values()))) == 1
        names = ("task",) if are_alike else ("task", "dataset")
        title = ", ".join(f"{name}={_known(run.compared, name) or '-'}" for name in names)
        parts.setdefault(title, []).append(run)
    return parts


def _differs_within_a_choice(runs: Sequence[RunRecord], name: str) -> bool:
    group = name.partition(".")[0]
    of_choice: dict[str | None, set[str | None]] = {}
    for run in runs:
        of_choice.setdefault(_known(run.compared, group), set()).add(_known(run.compared, name))
    return "." not in name or any(len(values) > 1 for values in of_choice.values())


def _known(values: Mapping[str, Any], key: str) -> str | None:
    return text(values[key]) if key in values else None


def beside(name: str, names: Iterable[str]) -> list[str]:
    """A metric, and those that are the same one of other forecasts: `test/rmse`, `test/persistence_rmse`."""
    split, _, own = name.rpartition("/")
    return [name, *(each for each in names if each.startswith(f"{split}/") and each.endswith(f"_{own}"))]


def horizon_columns(runs: Sequence[RunRecord]) -> list[str]:
    """The first metric by horizon of each run, and the same of other forecasts, at its first, middle and last one."""
    columns: dict[tuple[int, str], str] = {}
    for run in runs:
        for name in list(run.by_horizon)[:1]:
            steps = list(run.by_horizon[name])
            few = dict.fromkeys((steps[0], steps[(len(steps) - 1) // 2], steps[-1])) if steps else {}
            names = [each for each in beside(name, run.by_horizon) if each in run.summary["metrics"]]
            columns |= {(step, each): at_horizon(each, step) for step in few for each in names}
    return [columns[key] for key in sorted(columns, key=lambda key: key[0])]


def default_columns(runs: Sequence[RunRecord]) -> list[str]:
    """The objectives on the test split, else the first metrics; what the network costs."""
    metrics = list(dict.fromkeys(tag for run in runs for tag in run.summary.get("metrics", {})))
    objectives = dict.fromkeys(f"test/{run.objective[0]}" for run in runs if run.objective) or ["test/error"]
    first = [tag for tag in objectives if tag in metrics] or [tag for tag in metrics if tag.startswith("test/")]
    return (first or metrics)[:3] + [name for name in COSTS if any(name in run.values for run in runs)]
