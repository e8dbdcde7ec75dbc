"""One study that several processes and machines work on: who runs which trial, and what became of it."""

from __future__ import annotations

import math
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from node_cli.config import ConfigError
from node_cli.files import check_inside
from node_cli.runs.folder import RunFolder
from node_cli.runs.outcome import FAILED, FINISHED, PRUNED, UNFINISHED
from node_cli.runs.report.reading import RunRecord, read_runs
from node_cli.tuning.heartbeat import ATTEMPTS, ATTEMPTS_BEFORE, RETRY_OF, beat, end_lost_trials, quietly
from node_cli.tuning.search_space import Params, SearchSpace, identity, shown
from node_cli.tuning.settings import Settings
from node_cli.tuning.storage import STORAGE_ERRORS, open_study

VOID, REASON, PLACE = "void", "reason", "place"
NO_SIGN = "its machine gave no sign of life for {} seconds"
LEARNED_DRAWS, RANDOM_DRAWS = 5, 50  # of a trial, before its parameters count as exhausted
STATUS = {TrialState.COMPLETE: FINISHED, TrialState.PRUNED: PRUNED, TrialState.FAIL: FAILED}


class SharedStudy:
    """What is drawn and taken up again goes through a lock in the study's folder, one process after the other.

    Machines that share a data base alone have no such lock. There the number of a trial decides: one that repeats
    another, or is more than were asked for, is void: recorded, but not run and not counted.
    """

    def __init__(self, settings: Settings, space: SearchSpace, begun: dict[str, Any]) -> None:
        self.settings, self.space = settings, space
        self.study = open_study(settings, begun)
        self.study.pruner = _pruner(settings)
        self.lock = FileLock(settings.path / ".lock")
        # A journal lies in the folder with its trials: whoever can lock a run folder there may go on with it.
        self._place = f"{platform.node()}:{settings.path.resolve()}" if settings.storage else "beside the journal"

    def trials(self) -> list[FrozenTrial]:
        """Those that count, by their numbers; not those that were taken up under another number."""
        every = self.study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get(RETRY_OF) for trial in every}
        return [
            trial
            for trial in every
            if VOID not in trial.user_attrs and trial.state != TrialState.WAITING and trial.number not in retried
        ]

    def folder(self, number: int) -> Path:
        """The run folder of a trial. Raises ConfigError if a link leads out of the study."""
        path = self.settings.path / "trials" / str(number)
        try:
            check_inside(path, self.settings.path)
        except OSError as error:
            raise ConfigError(f"{path} is not used: {error.strerror}") from error
        return path

    def runs(self) -> list[RunRecord]:
        """Every trial as a record for a table, wherever it ran."""
        return [self._as_run(trial) for trial in self.trials()]

    def take(self) -> tuple[optuna.Trial, RunFolder] | None:
        """A trial to run, with its folder locked: one whose process died, or a new one; None: there is no more."""
        with self.lock:
            return self._take_abandoned() or self._take_new()

    def is_ours(self, trial: optuna.Trial) -> bool:
        """Whether no other machine has given it up for lost."""
        return self.study.get_trials(deepcopy=False)[trial.number].state == TrialState.RUNNING

    def give_back(self, trial: optuna.Trial) -> None:
        """Leaves it to whoever comes next; what ended it does not count among its attempts."""
        with suppress(*STORAGE_ERRORS):  # that is full too, say
            trial.set_user_attr(ATTEMPTS, trial.user_attrs[ATTEMPTS] - 1)

    def settle(self, trial: optuna.Trial, folder: RunFolder) -> str:
        """Tells the study what the run folder says of the trial's end; the outcome in a few words."""
        if not self.is_ours(trial):
            return f"given up: {NO_SIGN.format(self.settings.lost_after)}, so others may run it again"
        run = read_runs([folder.path])[0]
        reason = run.reason or self._lacking(run)
        if reason:
            trial.set_user_attr(REASON, reason)
            is_pruned = run.status == PRUNED
            self._tell(trial, TrialState.PRUNED if is_pruned else TrialState.FAIL)
            return f"{PRUNED if is_pruned else FAILED}: {reason}"
        values = {objective.metric: run.values[objective.column] for objective in self.settings.objectives}
        self._tell(trial, TrialState.COMPLETE, list(values.values()))
        return ", ".join(f"{metric} {value:.4g}" for metric, value in values.items())

    def _lacking(self, run: RunRecord) -> str:
        for objective in self.settings.objectives:
            value = run.values.get(objective.column)
            if value is None:
                return f"its run has no {objective.metric}"
            if not math.isfinite(value):
                return f"{objective.metric} is {value}"
        return ""

    def _take_abandoned(self) -> tuple[optuna.Trial, RunFolder] | None:
        running = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]
        trials = {frozen.number: optuna.Trial(self.study, frozen._trial_id) for frozen in running}
        is_alone = self.settings.storage is None
        for frozen in running:
            place, trial = frozen.user_attrs.get(PLACE), trials[frozen.number]
            if place != self._place and not (is_alone and place is None):
                continue
            if ATTEMPTS not in frozen.user_attrs:  # drawing goes on under the lock, which is ours now
                self._void(trial, "killed before it began")
                continue
            folder = RunFolder(self.folder(frozen.number))
            try:
                folder.lock()
            except ConfigError:
                continue
            if self._may_go_on(trial, folder):
                return trial, folder
            folder.unlock()
        end_lost_trials(self.study, [trials[t.number] for t in running if PLACE not in t.user_attrs and not is_alone])
        return None

    def _may_go_on(self, trial: optuna.Trial, folder: RunFolder) -> bool:
        beat(trial)
        if not self.is_ours(trial):  # it ended between the look and the lock
            return False
        attempts = trial.user_attrs[ATTEMPTS]
        if folder.status is None and attempts > self.settings.max_retries:
            reason = f"its process was killed {attempts} times"
            trial.set_user_attr(REASON, reason)
            if folder.holds_run:
                folder.write_summary({"status": FAILED, "reason": reason, "config": folder.read_config()})
            self._tell(trial, TrialState.FAIL)
            return False
        trial.set_user_attr(ATTEMPTS, attempts + 1)
        return True

    def _take_new(self) -> tuple[optuna.Trial, RunFolder] | None:
        for draw in range(RANDOM_DRAWS):
            if len(self.trials()) >= self.settings.trials:
                return None
            in_order = not self.space.endless and (self.settings.sampler == "grid" or draw >= LEARNED_DRAWS)
            if in_order and not self._enqueue_free_combination():
                return None
            with quietly():
                trial = self.study.ask()
            trial.set_user_attr(PLACE, self._place)
            beat(trial)
            learns = self.settings.sampler == "tpe" and draw < LEARNED_DRAWS
            self.study.sampler = _sampler(self.settings, trial.number, learns=learns)
            why_not = self._why_not(trial, self.space.suggest(trial))
            if not why_not:
                return self._begin(trial)
            self._void(trial, why_not)
        return None

    def _begin(self, trial: optuna.Trial) -> tuple[optuna.Trial, RunFolder]:
        folder = RunFolder(self.folder(trial.number))
        if folder.path.exists():
            self._void(trial, "its folder is another trial's")
            raise ConfigError(
                f"tune.name: {folder.path} is of another study, kept elsewhere (tune.storage): give another tune.name"
            )
        folder.lock()
        trial.set_user_attr(ATTEMPTS, trial.user_attrs.get(ATTEMPTS_BEFORE, 0) + 1)
        return trial, folder

    def _enqueue_free_combination(self) -> bool:
        """The next trial gets the first combination that none has had; False: there is none."""
        if self.study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
            return True
        used = {identity(trial.params) for trial in self.trials()}
        free = next((params for params in self.space.combinations() if identity(params) not in used), None)
        if free is not None:
            self.study.enqueue_trial(free)
        return free is not None

    def _why_not(self, trial: optuna.Trial, params: Params) -> str:
        others = [other for other in self.trials() if other.number != trial.number]
        if sum(other.number < trial.number for other in others) >= self.settings.trials:
            return "more than were asked for"
        return next((f"repeats {o.number}" for o in others if identity(o.params) == identity(params)), "")

    def _void(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr(VOID, reason)
        self._tell(trial, TrialState.FAIL)

    def _tell(self, trial: optuna.Trial, state: TrialState, values: list[float] | None = None) -> None:
        """What another machine has ended in this moment stays as it is."""
        self.study.tell(trial.number, values, state, skip_if_finished=True)

    def _as_run(self, trial: FrozenTrial) -> RunRecord:
        values = trial.values if trial.state == TrialState.COMPLETE else []
        metrics = {o.column: value for o, value in zip(self.settings.objectives, values or [], strict=False)}
        lost = NO_SIGN.format(self.settings.lost_after) if trial.state == TrialState.FAIL else ""
        reason, place = trial.user_attrs.get(REASON, lost), trial.user_attrs.get(PLACE, self._place)
        summary = {"metrics": metrics, "choices": {"trial": trial.number, **shown(trial.params)}, "config": {}}
        folder = self.folder(trial.number)
        if place != self._place:
            folder = Path(f"{place}/trials/{trial.number}")
        return RunRecord(folder, STATUS.get(trial.state, UNFINISHED), reason, summary)


def _sampler(settings: Settings, number: int, *, learns: bool) -> BaseSampler:
    """What draws one trial. Its seed follows from the trial's number: a study that goes on repeats no draw."""
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    if not learns:
        return RandomSampler(seed)
    return TPESampler(seed=seed, n_startup_trials=settings.startup_trials, multivariate=False)


def _pruner(settings: Settings) -> BasePruner:
    """What stops trials that fall behind, after `warmup_epochs`."""
    if settings.pruner == "median":
        return MedianPruner(settings.startup_trials, settings.warmup_epochs)
    if settings.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=max(1, settings.warmup_epochs), reduction_factor=3)
    return NopPruner()
