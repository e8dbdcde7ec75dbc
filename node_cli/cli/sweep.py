"""A grid (`node-train -m`): a folder with a run folder for each cell. What fails is written down, the others go on.

Needs no torch.
"""

from __future__ import annotations

import json
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from node_cli.cli.compose import CommandLine, checked_config, hydra_ready
from node_cli.cli.overrides import going_on, key_of, plain_or_quoted, quoted, value_of
from node_cli.cli.run_names import with_run_name
from node_cli.cli.streams import bearing_streams
from node_cli.cli.sweep_signals import Worker, passing_on
from node_cli.config import ConfigError, is_path, shown
from node_cli.files import kind_of, read_text
from node_cli.runs.folder import Request, RunFolder
from node_cli.runs.outcome import FINISHED, RunFailedError
from node_cli.runs.report.formats import RunTable, notes_on, terminal
from node_cli.runs.report.grouping import default_columns, differing_keys, group_runs
from node_cli.runs.report.reading import RunRecord, find_runs, read_runs
from node_cli.runs.report.writing import make_folder, write
from node_cli.training import launched
from node_cli.training.stopping import STATUS, Stopped, Stopping

SWEEPS = Path("outputs/sweeps")
RECORD, MAX_RECORD = "sweep.json", 1 << 26  # bytes; 10,000 cells of 20 words have some 6 million
LAUNCHERS = ("joblib", "submitit")  # whose errors are about their processes
_FIRST: dict[str, str] = {}  # the cell of this process that a failure was told of
OWN = ("sweep.", "hydra.", "hydra/")  # words about the sweep, not about its cells


def with_overrides_of_sweep(overrides: list[str]) -> list[str]:
    """`sweep.resume=<folder>` stands for the words that the sweep was begun with; those typed now must be the same.

    Raises:
        ConfigError: there is no sweep in the folder, or it was begun with other words.
    """
    resume = _value(overrides, "sweep.resume")
    if resume in (None, "null"):
        return overrides
    begun: list[str] = _read(Path(str(resume)))["overrides"]
    typed = _about_cells(overrides)
    packages = [word for word in begun if key_of(word) == "packages"]
    if set(packages) - set(typed):
        words = " ".join(f"'{word}'" for word in packages)
        raise ConfigError(
            f"sweep.resume: {resume} was begun with packages: if you trust them, name them again: "
            f"node-train -m sweep.resume={resume} {words}"
        )
    if set(typed) - set(packages) and sorted(typed) != sorted(begun):
        raise ConfigError(f"sweep.resume: {resume} was begun with other words: {' '.join(begun)}; leave yours out")
    return begun + [word for word in overrides if _is_own(word)]


@contextmanager
def sweeping(line: CommandLine) -> Iterator[list[str]]:
    """Within it the cells run, with further overrides; at its end the sweep is summed up.

    Raises:
        ConfigError: the folder cannot be written, is there already, or holds other cells.
        RunFailedError: a cell failed or did not finish.
        Stopped: a signal asked for it, and the cells at work are saved.
    """
    with hydra_ready(line):
        cells = line.cells()
        asked = checked_config(cells[0])["sweep"]
    if _value(line.overrides, "hydra/launcher") == "submitit_slurm" and shutil.which("srun") is None:
        raise ConfigError(
            "hydra/launcher=submitit_slurm needs SLURM, and there is no srun here: start it where jobs are submitted, "
            "or take hydra/launcher=joblib"
        )
    words = [_about_cells(cell.overrides) for cell in cells]
    if asked["resume"] is None:
        path = _path_of(asked["name"])
        _begin(path, {"overrides": _about_cells(line.overrides), "cells": words})
    else:
        path = Path(asked["resume"])
        if _read(path)["cells"] != words:
            raise ConfigError(f"sweep.resume: the words of {path} give other cells today than when it was begun")
        for number in range(len(words)):
            _check_cell(path / str(number))
    lost, word = "", f"sweep.resume={plain_or_quoted(str(path))}"
    again = going_on(word, line.overrides, line.extra_config_dir, is_sweep=True)
    try:
        with passing_on() as signals:
            yield [f"hydra.sweep.dir={quoted(str(path))}"]
    except Stopped as stopped:
        raise Stopped(f"{stopped}; to go on: {again}", stopped.status) from stopped
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in LAUNCHERS:
            raise
        lost = f"{type(error).__name__}: a process of the launcher was lost; "
    finally:
        sys.stdout.write(f"\n{_table(path)}")
    unfinished = [number for number in range(len(words)) if not RunFolder(path / str(number)).is_finished]
    if unfinished and signals:
        told = f"stopped by {signals[0].name}; to go on: {again}"
        raise Stopped(told, STATUS[signals[0]])
    if unfinished:
        raise RunFailedError(
            f"{lost}{len(unfinished)} of {len(words)} cells did not finish ({', '.join(map(str, unfinished))}); "
            f"to run them again: {again}"
        )


def run_cell(request: Request, path: Path, train: Callable[[Request, RunFolder], None]) -> None:
    """Trains one cell, or goes on with it, unless it is finished. What fails is recorded in its folder."""
    missed = Stopping.missed
    if Worker.stopped or (Worker.is_this() and missed):
        return
    if missed:  # it came when the cell before had only to end
        raise Stopped(f"stopped by {missed.name}", STATUS[missed])
    if Worker.is_this():
        launched.end_with_parent()
        with bearing_streams(needs_output=False):
            _run_cell(request, path, train)
    else:
        _run_cell(request, path, train)


def _run_cell(request: Request, path: Path, train: Callable[[Request, RunFolder], None]) -> None:
    folder, name = RunFolder(path), f"cell {path.name}: {' '.join(_about_cells(request.overrides))}"
    sys.stdout.write(f"{name}{', finished before' if folder.is_finished else ''}\n")
    if folder.is_finished:
        return
    try:
        folder.lock()
    except ConfigError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return
    resume = "auto" if folder.holds_run else None
    config = with_run_name(request.config, _swept(path, _about_cells(request.overrides)))
    request = replace(request, config=config | {"run_dir": str(path), "resume": resume})
    try:
        train(request, folder)
    except Stopped:
        if not Worker.is_this():
            raise
        Worker.stopped = True  # raised, it would have the others killed, which are at work on their last step
    except Exception as error:  # one cell's failure is not the others'
        first = _FIRST.setdefault(str(error), f"cell {path.name}")
        told = error if first == f"cell {path.name}" else f"the same as {first}"
        sys.stderr.write(f"{name}: {told}\n")
        if not isinstance(error, RunFailedError):  # which is recorded already
            is_mistake = isinstance(error, ConfigError)
            details = "" if is_mistake else traceback.format_exc()
            try:
                folder.write_failure(request, str(error) or repr(error), details)
            except OSError as unwritten:  # the disk is full, say
                sys.stderr.write(f"{name}: nor could that be written down: {unwritten.strerror}\n{details}")


def _swept(path: Path, words: Sequence[str]) -> list[str]:
    """The words that not all cells have."""
    cells = _read(path.parent)["cells"]
    return [word for word in words if not all(word in cell for cell in cells)]


def _check_cell(path: Path) -> None:
    """A cell is trained in a folder of the sweep, wherever a link of someone else's would lead."""
    kind = kind_of(path)
    if kind not in ("a folder", None):
        raise ConfigError(f"sweep.resume: {path} must be the folder of a cell, and is {kind}: remove it")


def _about_cells(overrides: Sequence[str]) -> list[str]:
    return [word for word in overrides if not _is_own(word)]


def _is_own(word: str) -> bool:
    return word.lstrip("+~").startswith(OWN)


def _value(overrides: Sequence[str], key: str) -> str | None:
    values = [value_of(word) for word in overrides if word.partition("=")[0].lstrip("+") == key]
    return values[-1] if values else None


def _path_of(name: Any) -> Path:
    path = SWEEPS / name if is_path(name) else SWEEPS
    if path == SWEEPS or Path(name).is_absolute() or ".." in path.parts:
        raise ConfigError(f"sweep.name must be a folder below {SWEEPS}, got {shown(name)}")
    return path


def _begin(path: Path, record: dict[str, Any]) -> None:
    make_folder(path.parent)
    try:
        path.mkdir()  # of two sweeps that begin at once, one is refused
    except FileExistsError as error:
        raise ConfigError(f"sweep.name: {path} exists: take another name, or sweep.resume={path}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    write(path / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(read_text(path / RECORD, MAX_RECORD, inside=path))
        overrides, cells = record["overrides"], record["cells"]
        if not all(isinstance(word, str) and not _is_own(word) for words in (overrides, *cells) for word in words):
            raise ValueError
        return {"overrides": list(overrides), "cells": list(cells)}
    except OSError as error:
        raise ConfigError(f"sweep.resume: no sweep at {path}: {path / RECORD} cannot be read") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"sweep.resume: {path / RECORD} is damaged") from error


def _table(path: Path) -> str:
    """The finished cells, those that differ in their seed as one row; the best one; the others, with reasons."""
    if not find_runs([path]):
        return "no cell was begun\n"
    runs = read_runs([path])
    finished = [run for run in runs if run.status == FINISHED]
    columns = default_columns(finished)
    keys = [key for key in differing_keys(finished) if key not in columns]
    table = RunTable(keys, columns, group_runs(finished, keys))
    return terminal(table, [*_best(finished), *notes_on(table, runs, len(runs)), str(path)])


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
