"""What `metrics.jsonl` holds, and how far a run is by it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from node_cli.analysis.report.record import Run

METRICS = "metrics.jsonl"
TAIL = 1 << 16  # bytes read to see how far a run is


def progress(run: Run) -> str:
    """How far the last whole lines say that it is, and how long ago the last one was written."""
    lines = _last_lines(run.folder)
    epoch, step = (next((line[key] for line in reversed(lines) if key in line), None) for key in ("epoch", "step"))
    if step is None:
        return "nothing written yet"
    epochs = run.values.get("trainer.epochs")
    done = f"epoch {epoch or 0}" + (f" of {epochs}" if epochs else "")
    written = lines[-1].get("time")
    return f"{done}, step {step}" + (f", written {_ago(written)}" if isinstance(written, (int, float)) else "")


def curves(run: Run) -> list[dict[str, Any]]:
    """The lines of a run; non-finite numbers are text, as they are written. Empty where there is no file."""
    try:
        return list(_objects((run.folder / METRICS).read_bytes()))
    except OSError:
        return []


def _last_lines(folder: Path) -> list[dict[str, Any]]:
    try:
        with (folder / METRICS).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            return list(_objects(file.read()))
    except OSError:
        return []


def _objects(content: bytes) -> Iterator[dict[str, Any]]:
    """The whole lines that are JSON objects; the rest was cut short, at the start of a tail or by a kill."""
    for line in content.split(b"\n")[:-1]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def _ago(then: float) -> str:
    seconds = max(0.0, time.time() - then)
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
