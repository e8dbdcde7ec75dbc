"""What a worker process of a study does: it takes one trial after the other, and trains it in its run folder."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from node_cli.config import ConfigError
from node_cli.files import NO_ROOM
from node_cli.loggers.base import Logger
from node_cli.runs.folder import Request, RunFolder
from node_cli.runs.outcome import PRUNED, RunFailedError, UnwrittenRunError
from node_cli.runs.resume import checkpoints_to_resume
from node_cli.training.stopping import STATUS, Stopping
from node_cli.tuning.heartbeat import beating
from node_cli.tuning.reporter import PrunedError, Reporter
from node_cli.tuning.search_space import Params, shown
from node_cli.tuning.storage import STORAGE_ERRORS
from node_cli.tuning.study import SharedStudy

Ask = Callable[[Params, RunFolder], Request]
Train = Callable[[Request, RunFolder, Sequence[Path], Sequence[Logger]], Any]


def run_trials(shared: SharedStudy, ask: Ask, train: Train) -> None:
    """Until the study has no trial left.

    Args:
        shared: the study.
        ask: what the run of a trial with such values is asked for, in its folder.
        train: trains it there, with loggers besides its own.

    Raises:
        RunFailedError: a trial could not be written down.
    """
    while not Stopping.missed and (taken := shared.take()) is not None:
        trial, folder = taken
        try:
            with beating(trial), _unwritten_is_not_its_fault(shared, trial, folder):
                if folder.status is None:
                    _run_trial(shared, trial, folder, ask, train)
                outcome = shared.settle(trial, folder)
        finally:
            folder.unlock()
        sys.stdout.write(f"trial {trial.number}: {' '.join(_drawn(trial))}: {outcome}\n")
        sys.stdout.flush()
    if Stopping.missed:  # it came when a trial had only to end
        sys.exit(STATUS[Stopping.missed])


@contextmanager
def _unwritten_is_not_its_fault(shared: SharedStudy, trial: optuna.Trial, folder: RunFolder) -> Iterator[None]:
    """A full disk ends the command, and no trial: whoever comes next goes on with this one."""
    try:
        yield
    except (UnwrittenRunError, OSError) as error:
        shared.give_back(trial)
        told = error if isinstance(error, UnwrittenRunError) else f"{folder.path} cannot be written: {error.strerror}"
        raise RunFailedError(f"trial {trial.number}: {told}; make room, and the same command goes on") from error


def _run_trial(shared: SharedStudy, trial: optuna.Trial, folder: RunFolder, ask: Ask, train: Train) -> None:
    """Trains it, or goes on with it, quietly: `run.log` has it. What fails or is pruned is recorded in the folder."""
    request = Request({}, [], {})
    try:
        request = ask(shared.space.suggest(trial), folder).named(_drawn(trial))
        metric, epochs = shared.settings.objectives[0].metric, request.config["trainer"].get("epochs")
        reports = [Reporter(trial, metric, epochs)] if shared.settings.prunes else []
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            train(request, folder, checkpoints_to_resume(request.config, folder), reports)
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


def _drawn(trial: optuna.Trial) -> list[str]:
    return [f"{key}={value}" for key, value in shown(trial.params).items()]
