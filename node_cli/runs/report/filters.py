"""`--where`: conditions on what is known of a run."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node_cli.config import ConfigError, shown
from node_cli.runs.outcome import FINISHED, UNFINISHED
from node_cli.runs.report.reading import RunRecord, is_number

ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
ALIASES = {"seconds": "seconds.training", "memory": "memory.peak_mb"}


@dataclass(frozen=True)
class Condition:
    """`key`, one of `= != < <= > >=`, and what the value is compared with, as typed."""

    key: str
    sign: str
    wanted: str

    def holds(self, run: RunRecord) -> bool:
        """Whether a run meets it. A run without such a value meets only `!=`, unless it has not finished."""
        if self.key not in run.values:
            return self.sign == "!=" or run.status != FINISHED
        value = run.values[self.key]
        if self.sign in ORDERS:
            return is_number(value) and bool(ORDERS[self.sign](value, float(self.wanted)))
        return self.equals(value) == (self.sign == "=")

    def equals(self, value: Any) -> bool:
        """Numbers are compared as numbers (1e-3 is 0.001), everything else as it is shown."""
        wanted = number(self.wanted)
        return value == wanted if is_number(value) and wanted is not None else text(value) == self.wanted


def parse_condition(typed: str) -> Condition:
    """`solver.rtol<=1e-3` as a condition. Raises ConfigError if it is not a condition."""
    parts = re.fullmatch(r"([^=!<>]+)(==|=|!=|<=|>=|<|>)(.*)", typed)
    if parts is None:
        raise ConfigError(f"--where {typed}: write KEY=VALUE (or != < <= > >=); folders come before the options")
    key, sign, wanted = (part.strip() for part in parts.groups())
    if sign in ORDERS and number(wanted) is None:
        raise ConfigError(f"--where {typed}: {sign} compares with a number, got {wanted!r}")
    return Condition(ALIASES.get(key, key), "=" if sign == "==" else sign, wanted)


def select(runs: Sequence[RunRecord], conditions: Sequence[Condition]) -> list[RunRecord]:
    """The runs that meet every condition.

    Raises:
        ConfigError: no run has such a key, or a finished run could have such a value and none has.
    """
    statuses = {run.status for run in runs}
    for condition in conditions:
        if UNFINISHED not in statuses or FINISHED in statuses:  # else the first to finish may bring it
            check_key("--where", condition.key, runs)
        if condition.sign == "=" and condition.key != "status":
            _check_value(condition, runs)
    return [run for run in runs if all(condition.holds(run) for condition in conditions)]


def check_key(option: str, key: str, runs: Iterable[RunRecord]) -> None:
    """Refuses a key that no run has."""
    if any(key in run.values for run in runs):
        return
    if Path(key).is_dir():
        raise ConfigError(f"{option} {key}: this is a folder; folders come before the options")
    known = sorted({name for run in runs for name in run.values})
    last = key.rpartition(".")[2]
    close = difflib.get_close_matches(key, known, n=1) or [name for name in known if last in re.split("[./]", name)][:3]
    meant = f"did you mean {' or '.join(close)}?" if close else "see summary.json of a run for what there is"
    raise ConfigError(f"{option} {key}: no run has it; {meant}")


def _check_value(condition: Condition, runs: Sequence[RunRecord]) -> None:
    values = [run.values[condition.key] for run in runs if condition.key in run.values]
    if not any(map(condition.equals, values)):
        there = sorted(set(map(text, values)))
        more = [f"{len(there) - 10} more"] if len(there) > 10 else []
        listed = ", ".join(there[:10] + more)
        raise ConfigError(f"--where {condition.key}={condition.wanted}: no run has this value; there are {listed}")


def text(value: Any) -> str:
    """A value as YAML shows it: true, null, 0.001; 1 for 1.0."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list):
        return f"[{', '.join(map(text, value))}]"
    return " ".join((value if isinstance(value, str) else shown(value)).split())


def number(typed: str) -> float | None:
    """The text as a number, None if it is not one."""
    try:
        return float(typed)
    except ValueError:
        return None
