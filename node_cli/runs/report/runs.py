"""The run folders below some folders, read into records."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from node_cli.config import ConfigError, shown
from node_cli.files import read_bytes
from node_cli.runs.folder import MAX_SUMMARY
from node_cli.runs.outcome import DAMAGED, FAILED, FINISHED, PRUNED, UNFINISHED
from node_cli.runs.report.progress import METRICS
from node_cli.runs.report.record import CONFIG, Run, is_number

SUMMARY = "summary.json"
MAX_DEPTH = 30  # of what a summary nests


def read_runs(folders: list[Path]) -> list[Run]:
    """Every run at or below the folders, in the order of their names.

    Raises:
        ConfigError: a folder does not exist, or there is no run in any of them.
    """
    found = find_runs(folders)
    if not found:
        raise ConfigError(f"no runs in {', '.join(map(str, folders))}: a run has a {SUMMARY} or a {CONFIG}")
    return [_read(folder, has_summary) for folder, has_summary in found.items()]


def find_runs(folders: list[Path]) -> dict[Path, bool]:
    """The run folders at or below the folders, each once, and whether each has a summary."""
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise ConfigError(f"no such folder: {', '.join(missing)}")
    seen: dict[str, tuple[Path, bool]] = {}
    for top in folders:
        real = os.path.realpath(top)
        for path, has_summary in _below(str(top)):
            seen.setdefault(real + path[len(str(top)) :], (Path(path), has_summary))
    return dict(seen.values())


def written_at(folders: list[Path]) -> dict[Path, list[int]]:
    """When the summary and the metrics of each run were last written, in nanoseconds; 0: not there."""
    return {folder: [_modified(folder / name) for name in (SUMMARY, METRICS)] for folder in find_runs(folders)}


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _below(folder: str) -> Iterator[tuple[str, bool]]:
    """Each run folder and whether it has a summary. Links are not followed: what they lead to would count twice."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            entries = sorted(os.scandir(path), key=lambda entry: _natural(entry.name))
        except OSError:
            yield path, True  # listed as damaged when its summary cannot be read either
            continue
        names = {entry.name for entry in entries}
        if SUMMARY in names or (".hydra" in names and os.path.lexists(os.path.join(path, CONFIG))):
            yield path, SUMMARY in names
        waiting += [entry.path for entry in reversed(entries) if entry.is_dir(follow_symlinks=False)]


def _natural(name: str) -> tuple[int, str]:
    """Sorts 2 before 10."""
    return (len(name), name) if name.isdigit() else (0, name)


def _read(folder: Path, has_summary: bool) -> Run:
    if not has_summary:
        return Run(folder, UNFINISHED, "", {})
    try:
        summary = json.loads(read_bytes(folder / SUMMARY, MAX_SUMMARY, inside=folder))
    except OSError as error:
        return _damaged(folder, f"{SUMMARY} cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        return _damaged(folder, f"{SUMMARY} is no JSON: {error}")
    wrong = _what_is_wrong(summary)
    if wrong:
        return _damaged(folder, f"{SUMMARY}: {wrong}")
    reason = "" if summary["status"] == FINISHED else str(summary.get("reason", "no reason is given"))
    return Run(folder, summary["status"], reason, summary)


def _damaged(folder: Path, reason: str) -> Run:
    return Run(folder, DAMAGED, reason, {})


def _what_is_wrong(summary: Any) -> str:
    """A few words if this cannot be the summary of a run."""
    if not _is_flat(summary):
        return f"nested more than {MAX_DEPTH} deep"
    if not isinstance(summary, dict):
        return f"expected an object, got a {type(summary).__name__}"
    if summary.get("status") not in (FINISHED, FAILED, PRUNED):
        return f"status must be {FINISHED}, {FAILED} or {PRUNED}, got {shown(summary.get('status'))}"
    for key in ("config", "choices", "metrics", "nfe"):
        if not isinstance(summary.get(key, {}), dict):
            return f"{key} must be an object, got a {type(summary[key]).__name__}"
    if summary["status"] == FINISHED and "metrics" not in summary:
        return "finished, but without metrics"
    if "objective" in summary and not _is_objective(summary["objective"]):
        return f"objective must name a metric, and min or max, got {shown(summary['objective'])}"
    odd = [tag for tag, value in summary.get("metrics", {}).items() if not is_number(value)]
    return f"{odd[0]} must be a number, got {shown(summary['metrics'][odd[0]])}" if odd else ""


def _is_objective(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("metric"), str) and value.get("goal") in ("min", "max")


def _is_flat(summary: Any) -> bool:
    """Whether it nests no deeper than what we write; without recursion, which has a bound of its own."""
    level = [summary]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        level = [each for values in inner for each in values]
    return not level
