"""What an audit leaves: tables, pictures, a verdict, and all figures for `audit.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from matplotlib.figure import Figure

from node_cli.audit.case import Case
from node_cli.files import write_whole

Tick = Callable[[str], None]  # called before each measurement, with what it is


@dataclass(frozen=True)
class Table:
    """A title and rows of equal keys, which are the names of the columns."""

    title: str
    rows: Sequence[Mapping[str, str]]

    def lines(self) -> list[str]:
        """The title, the names of the columns, a line for each row."""
        widths = {key: max(len(key), *(len(row[key]) for row in self.rows)) for key in self.rows[0]}
        lines = [{key: key for key in widths}, *self.rows]
        return [self.title, *("  ".join(f"{line[key]:<{widths[key]}}" for key in widths).rstrip() for line in lines)]


@dataclass(frozen=True)
class Report:
    """`details` are plain containers; `pictures` have the names of their files. `notes` explain the tables."""

    tables: Sequence[Table]
    notes: Sequence[str]
    verdict: str
    pictures: Mapping[str, Figure]
    details: Mapping[str, Any]


class AuditProblem(Protocol):
    """What `problem` names: something whose gradients can be known."""

    def num_measurements(self, cases: Sequence[Case]) -> int:
        """How often `audit` calls its `tick`."""

    def audit(self, cases: Sequence[Case], tick: Tick) -> Report:
        """Measures every case.

        Raises:
            SolveError: a solve failed on a problem where none should.
        """


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Plain containers as JSON, whole or not at all. JSON has no infinity: it becomes null."""
    text = json.dumps(_finite(content), indent=2, allow_nan=False)
    write_whole(path, f"{text}\n".encode())


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float) -> str:
    """An error or a gradient in a table."""
    return f"{value:.1e}"


def percent(value: float) -> str:
    """A relative error in a table, always in percent: about two digits, however small."""
    return f"{100 * value:.0f} %" if value >= 1 else f"{100 * value:.2g} %"
