"""What an audit is, and what it leaves: tables, figures, a verdict, and all numbers for `audit.json`."""

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
from node_cli.tables import Table

Tick = Callable[[str], None]  # called before each measurement, with its name


@dataclass(frozen=True)
class AuditReport:
    """What an audit has found. `details` are plain containers; `figures` are named after their files."""

    tables: Sequence[Table]
    notes: Sequence[str]
    verdict: str
    figures: Mapping[str, Figure]
    details: Mapping[str, Any]


class AuditProblem(Protocol):
    """What `problem` chooses: something whose gradients can be known."""

    def num_measurements(self, cases: Sequence[Case]) -> int:
        """How often `audit` calls its `tick`."""

    def audit(self, cases: Sequence[Case], tick: Tick) -> AuditReport:
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
