"""What `metrics.jsonl` holds, and how far it says that a run has come."""

from __future__ import annotations

import json
import time
from pathlib import Path

from node_cli.config import ConfigError
from node_cli.files import read_bytes, read_end
from node_cli.runs.report.record import Run

METRICS = "metrics.jsonl"
MAX_METRICS = 1 << 30  # bytes; a million records have some 300 million
TAIL = 1 << 16  # bytes read to see how far a run is


def progress(run: Run) -> str:
    """How far the run has come by its last whole lines, and how long ago the last one was written."""
    lines = _last_lines(run.folder)
    epoch, step = (next((line[key] for line in reversed(lines) if key in line), None) for key in ("epoch", "step"))
    if step is None:
        return "nothing written yet" if run.folder.is_dir() else "not on this machine"
    epochs = run.values.get("trainer.epochs")
    done = f"epoch {epoch or 0:.0f}" + (f" of {epochs}" if epochs else "")
    written = lines[-1].get("time")
    return f"{done}, step {step:.0f}" + (f", written {_ago(written)}" if written is not None else "")


def curves(run: Run) -> list[dict[str, float]]:
    """The lines of a run, without a last one that was cut short; none if there is no file.

    Raises:
        ConfigError: a line is damaged.
    """
    path = run.folder / METRICS
    try:
        lines = read_bytes(path, MAX_METRICS, inside=run.folder).split(b"\n")[:-1]
    except OSError:
        return []
    records = [_record(line) for line in lines]
    if None in records:
        number = records.index(None) + 1
        raise ConfigError(f"{path}, line {number} is damaged: leave the run out, --where 'folder!={run.folder}'")
    return [record for record in records if record is not None]


def _last_lines(folder: Path) -> list[dict[str, float]]:
    try:
        records = map(_record, read_end(folder / METRICS, TAIL, inside=folder).split(b"\n")[:-1])
        return [record for record in records if record is not None]
    except OSError:
        return []


def _record(line: bytes) -> dict[str, float] | None:
    """The numbers of a line, also those written as text ("nan", "inf"); None if it is damaged."""
    try:
        record = {str(tag): float(value) for tag, value in json.loads(line).items()}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return record if "step" in record else None


def _ago(then: float) -> str:
    seconds = max(0.0, time.time() - then)
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
