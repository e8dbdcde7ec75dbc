"""The run folders below some folders, read into records: status, every scalar by its name, curves and progress."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from node_cli.config import ConfigError, leaves, shown
from node_cli.files import read_bytes, read_end
from node_cli.loggers.jsonl_file import MAX_BYTES, numbers_of
from node_cli.runs.folder import CHOICES, CONFIG, MAX_SUMMARY, METRICS, SUMMARY, as_today
from node_cli.runs.outcome import DAMAGED, FAILED, FINISHED, PRUNED, UNFINISHED
from node_cli.yaml_file import read_yaml

LARGEST = 1 << 1023  # a larger whole number cannot be a float
MAX_DEPTH = 30  # of what a summary nests
TAIL = 1 << 16  # bytes read to see how far a run has come


@dataclass(frozen=True)
class RunRecord:
    """One run folder. `reason`: why it failed, was pruned or cannot be read; `summary` is empty if there is none."""

    folder: Path
    status: str
    reason: str
    summary: Mapping[str, Any]

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """From the summary, else from YAML, which is slow to read."""
        return as_today(self.summary.get("config") or self._read_yaml(CONFIG))

    @property
    def objective(self) -> tuple[str, str] | None:
        """The metric that its validations were compared by, and whether "min" or "max"; None: an earlier version's."""
        known = self.summary.get("objective")
        return None if known is None else (known["metric"], known["goal"])

    @cached_property
    def compared(self) -> dict[str, Any]:
        """The choice of each group and every key of the config, `model` and `model.width`."""
        choices = self.summary.get("choices") or ({} if "config" in self.summary else self._read_yaml(CHOICES))
        return dict(leaves(self.config)) | _classes(self.config) | dict(leaves(choices))

    @cached_property
    def values(self) -> dict[str, Any]:
        """These, and every other scalar: `test/error`, `nfe/forward`, `seconds.training`, `status`."""
        parts = {key: value for key, value in self.summary.items() if key not in ("config", "choices")}
        tags = (parts.pop("metrics", None) or {}) | (parts.pop("nfe", None) or {})
        own = {"status": self.status, "folder": str(self.folder)}
        ahead = {
            at_horizon(name, step): value for name, errors in self.by_horizon.items() for step, value in errors.items()
        }
        return self.compared | tags | dict(leaves(parts)) | ahead | own

    @property
    def by_horizon(self) -> dict[str, dict[int, float]]:
        """Metrics by how many times ahead a prediction looks; empty: the task has none."""
        found = self.summary.get("details", {}).get("by_horizon")
        if found is None:
            return {}
        return {
            f"test/{name}": dict(zip(found["steps"], map(_or_nan, row), strict=True))
            for name, row in found["metrics"].items()
        }

    def _read_yaml(self, name: Path) -> dict[str, Any]:
        if self.status == DAMAGED:
            return {}
        try:
            content = read_yaml(self.folder / name, inside=self.folder)
        except ConfigError:
            return {}
        return content if isinstance(content, dict) else {}


def _or_nan(value: Any) -> Any:
    """A number that JSON does not have is written as null."""
    return math.nan if value is None else value


def at_horizon(name: str, step: int) -> str:
    """What the value of a metric so many times ahead is called."""
    return f"{name}@{step}"


def is_number(value: Any) -> bool:
    """Whether it is a number that has a mean with others."""
    return isinstance(value, float) or (type(value) is int and abs(value) < LARGEST)


def _classes(config: Mapping[str, Any]) -> dict[str, str]:
    """Each group by its class, where the names of the choices were not recorded."""
    named = {str(group): node.get("_target_") for group, node in config.items() if isinstance(node, dict)}
    return {group: name.rpartition(".")[2] for group, name in named.items() if isinstance(name, str)}


def read_runs(folders: list[Path]) -> list[RunRecord]:
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
    """When the summary and the metrics of each run were last written, in nanoseconds; 0: no such file."""
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
            found = os.scandir(path)
            entries = sorted(found, key=lambda e: (len(e.name) if e.name.isdigit() else 0, e.name))  # 2 before 10
        except OSError:
            yield path, True  # listed as damaged when its summary cannot be read either
            continue
        names = {entry.name for entry in entries}
        if SUMMARY in names or (".hydra" in names and os.path.lexists(os.path.join(path, CONFIG))):
            yield path, SUMMARY in names
        waiting += [entry.path for entry in reversed(entries) if entry.is_dir(follow_symlinks=False)]


def _read(folder: Path, has_summary: bool) -> RunRecord:
    if not has_summary:
        return RunRecord(folder, UNFINISHED, "", {})
    try:
        summary = json.loads(read_bytes(folder / SUMMARY, MAX_SUMMARY, inside=folder))
    except OSError as error:
        return RunRecord(folder, DAMAGED, f"{SUMMARY} cannot be read: {error.strerror}", {})
    except (ValueError, RecursionError) as error:
        return RunRecord(folder, DAMAGED, f"{SUMMARY} is no JSON: {error}", {})
    wrong = _what_is_wrong(summary)
    if wrong:
        return RunRecord(folder, DAMAGED, f"{SUMMARY}: {wrong}", {})
    reason = "" if summary["status"] == FINISHED else str(summary.get("reason", "no reason is given"))
    return RunRecord(folder, summary["status"], reason, summary)


def _what_is_wrong(summary: Any) -> str:
    """What shows that this cannot be the summary of a run; empty if nothing does."""
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
    if not _is_by_horizon(summary.get("details", {})):
        return "details.by_horizon must have steps, and metrics with a number for each of them"
    objective = summary.get("objective", {"metric": "", "goal": "min"})
    names = [objective.get("metric"), objective.get("goal")] if isinstance(objective, dict) else [None, None]
    if not isinstance(names[0], str) or names[1] not in ("min", "max"):
        return f"objective must name a metric, and min or max, got {shown(objective)}"
    odd = [tag for tag, value in summary.get("metrics", {}).items() if not is_number(value)]
    return f"{odd[0]} must be a number, got {shown(summary['metrics'][odd[0]])}" if odd else ""


def _is_by_horizon(details: Any) -> bool:
    """Whether the metrics by horizon, if there are any, are as `Task.details` has them."""
    found = details.get("by_horizon") if isinstance(details, dict) else None
    if found is None:
        return isinstance(details, dict)
    steps, metrics = (found.get(key) for key in ("steps", "metrics")) if isinstance(found, dict) else (None, None)
    return (
        isinstance(steps, list)
        and all(type(step) is int for step in steps)
        and isinstance(metrics, dict)
        and all(
            isinstance(row, list) and len(row) == len(steps) and all(map(is_number, map(_or_nan, row)))
            for row in metrics.values()
        )
    )


def _is_flat(summary: Any) -> bool:
    """Whether it nests no deeper than what we write; without recursion, which has its own limit."""
    level = [summary]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list))]
        level = [each for values in inner for each in values]
    return not level


def progress(run: RunRecord) -> str:
    """How far the run has come by its last whole lines, and how long ago the last one was written."""
    try:
        texts = read_end(run.folder / METRICS, TAIL, inside=run.folder).split(b"\n")[:-1]
    except OSError:
        texts = []
    lines = [line for line in map(numbers_of, texts) if line is not None]
    epoch, step = (next((line[key] for line in reversed(lines) if key in line), None) for key in ("epoch", "step"))
    if step is None:
        return "nothing written yet" if run.folder.is_dir() else "not on this machine"
    epochs = run.values.get("trainer.epochs")
    done = f"epoch {epoch or 0:.0f}" + (f" of {epochs}" if epochs else "")
    written = lines[-1].get("time")
    return f"{done}, step {step:.0f}" + (f", written {_ago(written)}" if written is not None else "")


def curves(run: RunRecord) -> list[dict[str, float]]:
    """The lines of a run, without a last one that was cut short; none if there is no file.

    Raises:
        ConfigError: a line is damaged.
    """
    path = run.folder / METRICS
    try:
        lines = read_bytes(path, MAX_BYTES, inside=run.folder).split(b"\n")[:-1]
    except OSError:
        return []
    records = [record for record in map(numbers_of, lines) if record is not None]
    if len(records) < len(lines):
        number = next(number for number, line in enumerate(lines, 1) if numbers_of(line) is None)
        raise ConfigError(f"{path}, line {number} is damaged: leave the run out, --where 'folder!={run.folder}'")
    return records


def _ago(then: float) -> str:
    seconds = max(0.0, time.time() - then)
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
