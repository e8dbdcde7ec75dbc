"""The folder that one run is written to: its files by name, its config, and the lock that keeps a second run out.

Needs no torch: what is wrong with a folder is said before anything slow is loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from node_cli.config import ConfigError, shown
from node_cli.files import TEMPORARY, append, kind_of, read_text, remove_unfinished, write_whole
from node_cli.loggers.jsonl_file import FILE_NAME as METRICS
from node_cli.yaml_file import read_yaml

SUMMARY = "summary.json"
CONFIG, CHOICES = Path(".hydra", "config.yaml"), Path(".hydra", "choices.yaml")
MAX_NAME = 120  # characters of the name of one run among others
MAX_SUMMARY = 1 << 24  # bytes of a summary
EVENT_FILES = "events.out.tfevents."
# What earlier versions recorded under other names: modules of parts, and keys.
RENAMED_MODULES = {"node_cli.analysis.audit.": "node_cli.audit."}
RENAMED_KEYS = {("trainer", "pictures_every_epochs"): "figures_every_epochs"}


@dataclass(frozen=True)
class Request:
    """What a run is asked for: the whole config, the overrides as typed, and the YAML chosen for each group."""

    config: dict[str, Any]
    overrides: list[str]
    choices: dict[str, Any]

    def named(self, texts: Iterable[str]) -> Request:
        """The same, with `key=value` texts as the name in loggers that take a `run_name` and were given none."""
        name = name_of(texts)
        nodes = self.config["logger"].items()
        named = {key: node | {"run_name": name} if node.get("run_name", "") is None else node for key, node in nodes}
        return replace(self, config=self.config | {"logger": named})


def name_of(texts: Iterable[str]) -> str | None:
    """`key=value` texts as one name of a folder; None where there are none."""
    name = re.sub(r"^[+~.]+", "", ",".join(texts))
    return re.sub(r"[^\w.,=+-]+", "_", name, flags=re.ASCII)[:MAX_NAME] or None


class RunFolder:
    """`<path>/` with `.hydra/`, `run.log`, `metrics.jsonl`, `summary.json`, `checkpoints/` and event files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.log = path / "run.log"
        self.summary = path / SUMMARY
        self.curves = path / "curves.png"
        self.config = path / CONFIG
        self.choices = path / CHOICES
        self.overrides = path / ".hydra" / "overrides.yaml"
        self.origin = path / ".hydra" / "origin.yaml"
        self._lock = FileLock(path / ".lock", timeout=0)
        self._made: list[Path] = []

    @classmethod
    def of(cls, run_or_checkpoint: str) -> RunFolder:
        """The folder meant by a run folder or by a checkpoint file in it."""
        path = Path(run_or_checkpoint)
        folder = cls(path.parent.parent if path.suffix == ".pt" else path)
        if not folder.holds_run:
            raise ConfigError(f"no run at {run_or_checkpoint}: {folder.config} does not exist")
        return folder

    @property
    def holds_run(self) -> bool:
        """Whether a run was ever started here."""
        return self.config.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether a run came to its end here."""
        return self.status == "finished"

    @property
    def status(self) -> str | None:
        """What `summary.json` says: finished or failed; None without one that can be read."""
        summary = self.read_summary() or {}
        return str(summary["status"]) if "status" in summary else None

    def resumable(self) -> list[Path]:
        """The checkpoints that a run may continue from, the one that is meant first."""
        newest_first = sorted(self.checkpoints.glob("step-*.pt"), reverse=True)
        paths = [self.checkpoints / "last.pt", *newest_first, self.checkpoints / "best.pt"]
        return [path for path in paths if os.path.lexists(path)]  # whether it can be read, who reads it says

    def wrong_kinds(self) -> list[str]:
        """A line for each file and folder of a run that is something else here: a run would write through a link."""
        files = [self.log, self.path / METRICS, self.summary, self.curves]
        files += [self.config, self.choices, self.overrides, self.origin]
        files += [path for name in ("last.pt", "best.pt") if (path := self.checkpoints / name).is_dir()]
        meant = {self.config.parent: "a folder", self.checkpoints: "a folder"} | dict.fromkeys(files, "a file")
        found = {path: kind_of(path) for path in meant}
        return [
            f"{path} must be {kind} of the run, and is {found[path]}"
            for path, kind in meant.items()
            if found[path] not in (kind, None)
        ]

    def foreign_files(self) -> list[str]:
        """What lies in the folder and was not written by a run."""
        ours = {".hydra", ".lock", "run.log", METRICS, SUMMARY, "curves.png", "checkpoints"}
        paths = sorted(self.path.iterdir()) if self.path.is_dir() else []
        foreign = [path for path in paths if path.name not in ours and not path.name.startswith(TEMPORARY)]
        return [path.name for path in foreign if not _holds_events(path)]

    def lock(self) -> None:
        """Makes the folder and keeps other processes out of it, until `unlock` or the end of this process.

        Raises:
            ConfigError: another process holds it, or the folder cannot be written.
        """
        self._made += [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise ConfigError(
                f"another process is running in {self.path}: wait for it, or set another run_dir"
            ) from error
        except OSError as error:
            raise ConfigError(f"run_dir={self.path} cannot be written: {error.strerror}") from error

    def unlock(self) -> None:
        """Lets other processes in. Where no run was begun, what the lock has made goes again."""
        if self._lock.is_locked and not self.holds_run:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            with suppress(OSError):  # it is not empty
                for folder in self._made:
                    folder.rmdir()
        self._lock.release(force=True)

    def write_request(self, request: Request) -> None:
        """Records what the run is asked for, and forgets the summary of what it was asked for before.

        The config comes last: its presence says that a run is here.
        """
        self.summary.unlink(missing_ok=True)  # it would call a longer run finished
        self.config.parent.mkdir(exist_ok=True)
        for folder in (self.path, self.config.parent):
            remove_unfinished(folder)
        write_whole(self.overrides, yaml.safe_dump(request.overrides, sort_keys=False).encode())
        write_whole(self.origin, yaml.safe_dump(os.getcwd()).encode())
        write_whole(self.choices, yaml.safe_dump(request.choices, sort_keys=False).encode())
        write_whole(self.config, yaml.safe_dump(request.config, sort_keys=False).encode())

    def read_config(self) -> dict[str, Any]:
        """The config as it was recorded, plain containers, by today's names."""
        return as_today(self._read(self.config, dict, "config"))

    def read_origin(self) -> str | None:
        """The working folder in which the run was started or last continued; None of a run that has not recorded it."""
        if not os.path.lexists(self.origin):
            return None
        origin: str = self._read(self.origin, str, "folder")
        if not os.path.isabs(origin):
            raise ConfigError(f"{self.origin} is damaged: it holds no folder")
        return origin

    def read_overrides(self) -> list[str]:
        """The overrides as they were typed, by today's names of the keys."""
        overrides: list[str] = self._read(self.overrides, list, "overrides")
        odd = [each for each in overrides if not isinstance(each, str)]
        if odd:
            raise ConfigError(f"{self.overrides} is damaged: {shown(odd[0])} is no override")
        for (group, old), new in RENAMED_KEYS.items():
            overrides = [each.replace(f"{group}.{old}=", f"{group}.{new}=") for each in overrides]
        return overrides

    def read_choices(self) -> dict[str, Any]:
        """The YAML chosen for each group."""
        choices: dict[str, Any] = self._read(self.choices, dict, "choices")
        return choices

    def _read(self, path: Path, kind: type, what: str) -> Any:
        content = read_yaml(path, inside=self.path)
        if not isinstance(content, kind):
            raise ConfigError(f"{path} is damaged: it holds no {what}")
        return content

    def read_summary(self) -> dict[str, Any] | None:
        """What `summary.json` holds; None without one that can be read."""
        try:
            summary = json.loads(read_text(self.summary, MAX_SUMMARY, inside=self.path))
        except (OSError, ValueError, RecursionError):
            return None
        return summary if isinstance(summary, dict) else None

    def write_failure(self, request: Request, reason: str, details: str = "") -> None:
        """Records that the run could not go on, and why; in the log with `details`, a traceback say."""
        self.path.mkdir(parents=True, exist_ok=True)
        append(self.log, (f"FAILED {reason}\n{details}".rstrip() + "\n").encode(errors="backslashreplace"))
        self.write_summary({"status": "failed", "reason": reason, "config": request.config, "choices": request.choices})

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Records the outcome as JSON."""
        write_whole(self.summary, (json.dumps(summary, indent=2) + "\n").encode())


def _holds_events(path: Path) -> bool:
    """Whether it is TensorBoard's: a file of events, or a folder of them alone."""
    children = list(path.iterdir()) if path.is_dir() else []
    return all(child.name.startswith(EVENT_FILES) for child in children or [path])


def as_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config with parts and keys as they are called today."""
    today: dict[str, Any] = dict(config)
    for group, node in config.items():
        if isinstance(node, dict):
            today[group] = {RENAMED_KEYS.get((group, key), key): value for key, value in node.items()}
            for old, new in RENAMED_MODULES.items():
                if str(node.get("_target_")).startswith(old):
                    today[group]["_target_"] = new + node["_target_"].removeprefix(old)
    return today
