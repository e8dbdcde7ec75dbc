"""Runs that differ by their seed alone as one row: mean and deviation of every figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node_cli.analysis.report.filters import text
from node_cli.analysis.report.record import Run, is_number
from node_cli.config import ConfigError

# They name a run or where its figures go, or change them no more than another seed does.
NOT_COMPARED = ("seed", "run_dir", "resume", "packages", "logger", "audit", "sweep", "num_threads", "experiment")
FIGURES = ("parameters", "nfe/forward", "nfe/backward", "seconds.training", "memory.peak_mb")


@dataclass(frozen=True)
class Figure:
    """Mean and sample deviation over `count` runs; one run has no deviation. `exact`: all are one whole number."""

    mean: float
    deviation: float | None
    count: int
    exact: bool = False


@dataclass(frozen=True)
class Group:
    """Runs with the same values of the keys that they are grouped by."""

    keys: Mapping[str, Any]
    runs: Sequence[Run]

    def key_text(self, key: str) -> str | None:
        """The value of a key as it is shown; None where the runs have no such key."""
        return _known(self.runs[0].values, key)

    def label(self) -> str:
        """The group in a few words."""
        return ", ".join(f"{key}={self.key_text(key) or '-'}" for key in self.keys) or "all runs"

    def cell(self, column: str) -> Figure | str | None:
        """What a table shows: a figure, or the text that all runs share; None where no run has it."""
        values = [run.values[column] for run in self.runs if run.values.get(column) is not None]
        numbers = [value for value in values if is_number(value)]
        if numbers or not values:
            return figure(numbers) if numbers else None
        different = sorted(set(map(text, values)))
        return different[0] if len(different) == 1 else f"{len(different)} different"

    def num_with(self, column: str) -> int:
        """How many of the runs have it."""
        return sum(run.values.get(column) is not None for run in self.runs)


def figure(values: Sequence[float]) -> Figure:
    """Of one or more numbers; what is not finite makes the mean so, and leaves no deviation."""
    count = len(values)
    exact = all(isinstance(value, int) for value in values) and len(set(values)) == 1
    mean = float(sum(values)) / count
    if count == 1 or not math.isfinite(mean):
        return Figure(mean, None, count, exact)
    return Figure(mean, math.dist(values, [mean] * count) / math.sqrt(count - 1), count, exact)


def group_runs(runs: Sequence[Run], keys: Sequence[str]) -> list[Group]:
    """One group for each combination of values there is, sorted by them; a lacking value is None and comes last."""
    groups: dict[tuple[str | None, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(_known(run.values, key) for key in keys), []).append(run)
    made = [Group({key: same[0].values.get(key) for key in keys}, same) for same in groups.values()]
    return sorted(made, key=lambda group: [_rank(value) for value in group.keys.values()])


def _rank(value: Any) -> tuple[int, float, str]:
    if value is None:
        return (2, 0.0, "")
    return (0, float(value), "") if is_number(value) else (1, 0.0, text(value))


def sort_groups(groups: Sequence[Group], column: str, *, descending: bool) -> list[Group]:
    """By a key, a figure's mean or `runs`; groups that lack it come last either way."""

    def value(group: Group) -> Any:
        if column == "runs":
            return len(group.runs)
        cell = group.keys[column] if column in group.keys else group.cell(column)
        if isinstance(cell, Figure):
            return None if math.isnan(cell.mean) else cell.mean
        return cell

    lacking = [group for group in groups if value(group) is None]
    having = [group for group in groups if value(group) is not None]
    return sorted(having, key=lambda group: _rank(value(group)), reverse=descending) + lacking


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """The choices that differ, and the config keys that differ among runs of one choice; no seeds and folders.

    A key that only some choices have, or that each has a default of its own for, is no difference beside the choice.
    """
    names = dict.fromkeys(name for run in runs for name in run.compared)
    groups = {name.partition(".")[0] for name in names if "." in name}
    different = [name for name in names if _counts(name) and not _all_equal(runs, name)]
    choices = [name for name in different if name in groups]
    return choices + [name for name in different if name not in groups and _differs_within_a_choice(runs, name)]


def _all_equal(runs: Sequence[Run], name: str) -> bool:
    """Without a look at how values are shown: that would take most of the time of a report."""
    first = runs[0].compared
    return all(name in run.compared and name in first and run.compared[name] == first[name] for run in runs)


def _differs_within_a_choice(runs: Sequence[Run], name: str) -> bool:
    group = name.partition(".")[0]
    of_choice: dict[str | None, set[str | None]] = {}
    for run in runs:
        of_choice.setdefault(_known(run.compared, group), set()).add(_known(run.compared, name))
    return "." not in name or any(len(values) > 1 for values in of_choice.values())


def _known(values: Mapping[str, Any], key: str) -> str | None:
    return text(values[key]) if key in values else None


def _counts(key: str) -> bool:
    return key.partition(".")[0] not in NOT_COMPARED and not key.rpartition(".")[2].startswith("_")


def default_columns(runs: Sequence[Run]) -> list[str]:
    """The error on the test split, else the first metrics; what the network costs."""
    metrics = list(dict.fromkeys(tag for run in runs for tag in run.summary.get("metrics", {})))
    first = ["test/error"] if "test/error" in metrics else [tag for tag in metrics if tag.startswith("test/")]
    return (first or metrics)[:3] + [name for name in FIGURES if any(name in run.values for run in runs)]


def check_number(option: str, column: str, groups: Sequence[Group]) -> None:
    """Refuses a column of text where a figure is asked for."""
    if not any(isinstance(group.cell(column), Figure) for group in groups):
        raise ConfigError(f"{option} {column}: no run has such a number")
