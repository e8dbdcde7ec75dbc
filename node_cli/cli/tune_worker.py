"""A worker process of a study: takes one trial after the other, and trains it in its run folder."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from node_cli.cli.compose import checked_config, choices_of_ours, hydra_ready
from node_cli.cli.errors import one_line_errors
from node_cli.cli.overrides import quoted
from node_cli.cli.run_names import with_run_name
from node_cli.cli.run_training import run_training
from node_cli.cli.search import Search, storage_told
from node_cli.config import ConfigError
from node_cli.files import NO_ROOM
from node_cli.runs.folder import Request, RunFolder
from node_cli.runs.outcome import PRUNED, RunFailedError, UnwrittenRunError
from node_cli.runs.resume import checkpoints_to_resume
from node_cli.training import launched
from node_cli.training.stopping import STATUS, Stopping
from node_cli.tuning.heartbeat import beating
from node_cli.tuning.reporter import PrunedError, Reporter
from node_cli.tuning.search_space import shown
from node_cli.tuning.storage import STORAGE_ERRORS
from node_cli.tuning.study import SharedStudy


def work(search: Search) -> None:
    """Until the study has no trial left."""
    launched.end_with_parent()
    with one_line_errors("node-tune", needs_output=False), storage_told(search.settings):
        shared = search.open()
        while not Stopping.missed and (taken := shared.take()) is not None:
            trial, folder = taken
            try:
                with beating(trial), _unwritten_is_not_its_fault(shared, trial, folder):
                    if folder.status is None:
                        _run_trial(search, trial, folder)
                    outcome = shared.settle(trial, folder)
            finally:
                folder.unlock()
            words = " ".join(f"{key}={value}" for key, value in shown(trial.params).items())
            sys.stdout.write(f"trial {trial.number}: {words}: {outcome}\n")
            sys.stdout.flush()
    if Stopping.missed:  # it came when a trial had only to end
        sys.exit(STATUS[Stopping.missed])


@contextlib.contextmanager
def _unwritten_is_not_its_fault(shared: SharedStudy, trial: optuna.Trial, folder: RunFolder) -> Iterator[None]:
    """A full disk ends the command, and no trial: whoever comes next goes on with this one."""
    try:
        yield
    except (UnwrittenRunError, OSError) as error:
        shared.give_back(trial)
        told = error if isinstance(error, UnwrittenRunError) else f"{folder.path} cannot be written: {error.strerror}"
        raise RunFailedError(f"trial {trial.number}: {told}; make room, and the same command goes on") from error


def _run_trial(search: Search, trial: optuna.Trial, folder: RunFolder) -> None:
    """Trains it, or goes on with it; what fails or is pruned is recorded in the folder."""
    words = [*search.line_with(search.space.suggest(trial)).overrides, f"run_dir={quoted(str(folder.path))}"]
    request = Request({}, words, {})
    try:
        request = _request(search, words, is_begun=folder.holds_run)
        _train(search, trial, request, folder)
    except PrunedError as pruned:
        outcome = {"status": PRUNED, "reason": str(pruned), "epochs": pruned.epoch, "metrics": pruned.figures}
        folder.write_summary({**outcome, "config": request.config, "choices": request.choices})
    except (*STORAGE_ERRORS, UnwrittenRunError):  # not the trial's: it goes on later
        raise
    except UpdateFinishedTrialError:  # as `settle` will say
        folder.write_failure(request, "given up: another machine has taken the trial up")
    except Exception as error:  # one trial's failure is not the others'
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        is_told = isinstance(error, (ConfigError, RunFailedError))
        folder.write_failure(request, str(error) or repr(error), "" if is_told else traceback.format_exc())


def _request(search: Search, words: list[str], *, is_begun: bool) -> Request:
    line = replace(search.line, overrides=[*words, *(["resume=auto"] if is_begun else [])])
    with hydra_ready(line):
        choices = line.compose(line.overrides, with_hydra=True).hydra.runtime.choices
        return Request(checked_config(line), line.overrides, choices_of_ours(choices))


def _train(search: Search, trial: optuna.Trial, request: Request, folder: RunFolder) -> None:
    """As `node-train` does, but quietly: `run.log` has it."""
    drawn = [f"{key}={value}" for key, value in shown(trial.params).items()]
    request = replace(request, config=with_run_name(request.config, drawn))
    epochs = request.config["trainer"].get("epochs")
    reports = [Reporter(trial, search.settings.objectives[0].metric, epochs)] if search.settings.prunes else []
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        run_training(request, folder, checkpoints_to_resume(request.config, folder), reports)
