"""A sweep (`node-train -m`): a folder with a run folder for each job. What fails is recorded, the others go on.

Needs no torch.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from node_cli.config import ConfigError, is_path, shown
from node_cli.files import kind_of, read_text
from node_cli.runs.folder import Request, RunFolder
from node_cli.runs.outcome import FINISHED, RunFailedError
from node_cli.runs.report.formats import RunTable, notes_on, terminal
from node_cli.runs.report.grouping import default_columns, differing_keys, group_runs
from node_cli.runs.report.reading import RunRecord, find_runs, read_runs
from node_cli.runs.report.writing import make_folder, write
from node_cli.training import launched
from node_cli.training.stopping import HANDLED, STATUS, Stopped, Stopping, handling

SWEEPS = Path("outputs/sweeps")
RECORD, MAX_RECORD = "sweep.json", 1 << 26  # bytes; 10,000 jobs of 20 overrides have some 6 million
LAUNCHERS = ("joblib", "submitit")  # whose errors are about their processes


@dataclass(frozen=True)
class Sweep:
    """A sweep as it was begun, and as its folder records it."""

    path: Path  # job 0 lies in `<path>/0`
    overrides: Sequence[str]  # as they were typed, but for those about the sweep
    jobs: Sequence[Sequence[str]]  # the overrides of each

    @classmethod
    def read(cls, path: Path) -> Sweep:
        """The sweep that a folder holds. Raises ConfigError if there is none, or its record is damaged."""
        try:
            record = json.loads(read_text(path / RECORD, MAX_RECORD, inside=path))
            overrides, jobs = record["overrides"], record["jobs" if "jobs" in record else "cells"]  # as it was called
            if not all(isinstance(text, str) for texts in (overrides, *jobs) for text in texts):
                raise ValueError
            return cls(path, list(overrides), list(jobs))
        except OSError as error:
            raise ConfigError(f"sweep.resume: no sweep at {path}: {path / RECORD} cannot be read") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(path) from error

    def begin(self) -> None:
        """Makes the folder and its record. Raises ConfigError if it exists, or cannot be written."""
        make_folder(self.path.parent)
        try:
            self.path.mkdir()  # of two sweeps that begin at once, one is refused
        except FileExistsError as error:
            raise ConfigError(
                f"sweep.name: {self.path} exists: take another name, or sweep.resume={self.path}"
            ) from error
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}") from error
        record = {"overrides": self.overrides, "jobs": self.jobs}
        write(self.path / RECORD, (json.dumps(record, indent=2) + "\n").encode())

    def check_same(self) -> None:
        """Refuses to go on with other jobs than it was begun with, or outside its folder.

        Raises:
            ConfigError: the overrides give other jobs today, or a link of someone else's leads out.
        """
        if Sweep.read(self.path).jobs != self.jobs:
            raise ConfigError(
                f"sweep.resume: the overrides of {self.path} give other jobs today than when it was begun"
            )
        for number in range(len(self.jobs)):
            path = self.path / str(number)
            kind = kind_of(path)
            if kind not in ("a folder", None):
                raise ConfigError(f"sweep.resume: {path} must be the folder of a job, and is {kind}: remove it")

    def swept(self, overrides: Sequence[str]) -> list[str]:
        """The overrides of a job that not all jobs have."""
        return [text for text in overrides if not all(text in job for job in self.jobs)]

    @contextmanager
    def running(self, again: str) -> Iterator[None]:
        """Within it the jobs run; at its end they are summed up. `again` is the command that goes on with them.

        Raises:
            RunFailedError: a job failed or did not finish.
            Stopped: a signal asked for it, and the jobs at work are saved.
        """
        lost = ""
        try:
            with passing_on() as signals:
                yield
        except Stopped as stopped:
            raise Stopped(f"{stopped}; to go on: {again}", stopped.status) from stopped
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in LAUNCHERS:
                raise
            lost = f"{type(error).__name__}: a process of the launcher was lost; "
        finally:
            sys.stdout.write(f"\n{self._table()}")
        numbers = range(len(self.jobs))
        unfinished = [number for number in numbers if not RunFolder(self.path / str(number)).is_finished]
        if unfinished and signals:
            raise Stopped(f"stopped by {signals[0].name}; to go on: {again}", STATUS[signals[0]])
        if unfinished:
            raise RunFailedError(
                f"{lost}{len(unfinished)} of {len(numbers)} jobs did not finish ({', '.join(map(str, unfinished))}); "
                f"to run them again: {again}"
            )

    def _table(self) -> str:
        """The finished jobs, those that differ in their seed as one row; the best one; the others, with reasons."""
        if not find_runs([self.path]):
            return "no job was begun\n"
        runs = read_runs([self.path])
        finished = [run for run in runs if run.status == FINISHED]
        columns = default_columns(finished)
        keys = [key for key in differing_keys(finished) if key not in columns]
        table = RunTable(keys, columns, group_runs(finished, keys))
        return terminal(table, [*_best(finished), *notes_on([table], runs, len(runs)), str(self.path)])


def folder_named(name: Any) -> Path:
    """Where `sweep.name` puts a sweep. Raises ConfigError if it is no folder below that of all sweeps."""
    path = SWEEPS / name if is_path(name) else SWEEPS
    if path == SWEEPS or Path(name).is_absolute() or ".." in path.parts:
        raise ConfigError(f"sweep.name must be a folder below {SWEEPS}, got {shown(name)}")
    return path


def damaged(path: Path) -> ConfigError:
    """What is wrong with a sweep whose record is not one that was written here."""
    return ConfigError(f"sweep.resume: {path / RECORD} is damaged")


def run_job(request: Request, path: Path, train: Callable[[Request, RunFolder], None]) -> None:
    """Trains one job, or goes on with it, unless it is finished. What fails is recorded in its folder."""
    missed = Stopping.missed
    if Worker.stopped or (Worker.is_this() and missed):
        return
    if missed:  # it came when the job before had only to end
        raise Stopped(f"stopped by {missed.name}", STATUS[missed])
    if Worker.is_this():
        launched.end_with_parent()
    _run_job(request, path, train)


def _run_job(request: Request, path: Path, train: Callable[[Request, RunFolder], None]) -> None:
    folder, name = RunFolder(path), f"job {path.name}: {' '.join(request.overrides)}"
    sys.stdout.write(f"{name}{', finished before' if folder.is_finished else ''}\n")
    if folder.is_finished:
        return
    try:
        folder.lock()
    except ConfigError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return
    resume = "auto" if folder.holds_run else None
    request = request.named(Sweep.read(path.parent).swept(request.overrides))
    request = replace(request, config=request.config | {"run_dir": str(path), "resume": resume})
    try:
        train(request, folder)
    except Stopped:
        if not Worker.is_this():
            raise
        Worker.stopped = True  # raised, it would have the others killed, which are at work on their last step
    except Exception as error:  # one job's failure is not the others'
        first = Worker.reported.setdefault(str(error), f"job {path.name}")
        message = error if first == f"job {path.name}" else f"the same as {first}"
        sys.stderr.write(f"{name}: {message}\n")
        if not isinstance(error, RunFailedError):  # which is recorded already
            is_mistake = isinstance(error, ConfigError)
            details = "" if is_mistake else traceback.format_exc()
            try:
                folder.write_failure(request, str(error) or repr(error), details)
            except OSError as unwritten:  # the disk is full, say
                sys.stderr.write(f"{name}: nor could that be written down: {unwritten.strerror}\n{details}")


@contextmanager
def passing_on() -> Iterator[list[signal.Signals]]:
    """Within it a signal goes on to the processes that this one has started; the list holds what came.

    Raises:
        Stopped: there are none: the jobs run here, one by one, or as jobs of a cluster, which go on.
    """
    asked: list[signal.Signals] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        workers = multiprocessing.active_children()
        if number == signal.SIGINT and (asked or not workers):
            raise KeyboardInterrupt
        if frame is None:  # handed on by the run that it came to, which says more
            return
        asked.append(signal.Signals(number))
        if len(asked) > 1:  # they are at it
            return
        if not workers:
            raise Stopped(f"stopped by {asked[0].name}", STATUS[asked[0]])
        for worker in workers:
            worker.terminate()  # SIGTERM; a terminal has sent SIGINT to all, and a second one would end them at once

    with handling(HANDLED, pass_on), launched.naming_parent():
        yield asked


class Worker:
    """What a process knows of itself that runs many jobs."""

    stopped = False  # then the jobs that wait for it are not begun
    reported: ClassVar[dict[str, str]] = {}  # failures, and the job of which each was reported first

    @staticmethod
    def is_this() -> bool:
        """Whether it is one."""
        return multiprocessing.current_process().name != "MainProcess"


def _best(finished: Sequence[RunRecord]) -> list[str]:
    """The run that validation would choose, where all are compared by the same."""
    objectives = {run.objective for run in finished}
    objective = objectives.pop() if len(objectives) == 1 else None
    if objective is None:
        return []
    name, goal = objective
    tag = f"val/{name}"
    values = {run.folder: run.summary["metrics"][tag] for run in finished if tag in run.summary["metrics"]}
    best = (min if goal == "min" else max)(values, key=lambda folder: values[folder], default=None)
    return [] if best is None else [f"best on validation: {best}, {tag} {values[best]:.4g}"]
