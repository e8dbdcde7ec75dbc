"""What a worker process of a study does: it takes one trial after the other, and trains it in its run folder."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from node_cli.tuning.search_space import Params, shown
from node_cli.tuning.storage import STORAGE_ERRORS
from node_cli.tuning.study import SharedStudy

Ask = Callable[[Params, RunFolder], Request]
Train = Callable[[Request, RunFolder, Sequence[Path], Sequence[Logger]], Any]


class PrunedError(Exception):
    """The run has fallen behind; `epoch` was its last, with `metrics` of the validation."""

    def __init__(self, metric: str, epoch: int, values: Mapping[str, float]) -> None:
        super().__init__(f"after epoch {epoch}, with {metric} {values[metric]:.4g}")
        self.epoch = epoch
        self.metrics = {tag: value for tag, value in values.items() if tag.startswith("val/")}


class Reporter(Logger):
    """Passes `metric` of each epoch to `trial`. What a resumed run reports again is passed by.

    Raises:
        PrunedError: the study's pruner would not go on; never after the last of `epochs`, when nothing is saved.
    """

    takes_images = False

    def __init__(self, trial: optuna.Trial, metric: str, epochs: int | None) -> None:
        self._trial, self._metric, self._epochs = trial, metric, epochs
        (frozen,) = (t for t in trial.study.get_trials(deepcopy=False) if t.number == trial.number)
        self._reported = set(frozen.intermediate_values)

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        if "epoch" not in values or self._metric not in values:
            return
        epoch = int(values["epoch"])
        if epoch not in self._reported:
            self._trial.report(values[self._metric], epoch)
        if epoch != self._epochs and self._trial.should_prune():
            raise PrunedError(self._metric, epoch, values)


def run_trials(shared: SharedStudy, ask: Ask, train: Train) -> None:
    """Runs trials until the study has none left; `train` trains what `ask` makes of the values that a trial has drawn.

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
        what = error if isinstance(error, UnwrittenRunError) else f"{folder.path} cannot be written: {error.strerror}"
        raise RunFailedError(f"trial {trial.number}: {what}; make room, and the same command goes on") from error


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
        outcome = {"status": PRUNED, "reason": str(pruned), "epochs": pruned.epoch, "metrics": pruned.metrics}
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
