"""Signs of life in a data base: machines that share nothing else learn from them that one of them is gone.

The time is that of the data base's server, so the clocks of the machines do not matter.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import optuna
from optuna.storages import fail_stale_trials
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.trial import FrozenTrial

BEAT = 15  # seconds between two signs, on every machine, whatever it has for `lost_after`
ATTEMPTS = "attempts"  # how often a trial was begun
RETRY_OF, ATTEMPTS_BEFORE = "retry_of", "attempts_before"  # of a trial that was begun elsewhere under another number
WATCHED = "watched"


@contextmanager
def quietly() -> Iterator[None]:
    """Without Optuna's warnings that signs of life are experimental, and sent by `Study.optimize` alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage is supposed")
        yield


def beat(trial: optuna.Trial) -> None:
    """One sign, where the study is kept in a data base."""
    storage = trial.study._storage
    if isinstance(storage, BaseHeartbeat):
        storage.record_heartbeat(trial._trial_id)


@contextmanager
def beating(trial: optuna.Trial) -> Iterator[None]:
    """Within it, signs go out."""
    is_over = threading.Event()
    if not isinstance(trial.study._storage, BaseHeartbeat):
        is_over.set()

    def signs() -> None:
        while not is_over.wait(BEAT):
            with suppress(Exception):  # the next may come through; the trial itself tells what is wrong
                beat(trial)

    thread = threading.Thread(target=signs, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def end_lost_trials(study: optuna.Study, unplaced: list[optuna.Trial]) -> None:
    """Fails the trials whose machine has given no sign for too long; `retry_elsewhere` hears of each, once.

    Of those in `unplaced` no sign may ever have come: for them the time begins with the first look.
    """
    for trial in unplaced:
        if WATCHED not in trial.user_attrs:
            trial.set_user_attr(WATCHED, True)
            beat(trial)
    with quietly():
        fail_stale_trials(study)


def retry_elsewhere(study: optuna.Study, lost: FrozenTrial, *, max_retries: int) -> None:
    """Another trial with the same values waits for whoever comes next; the lost one no longer counts."""
    attempts = lost.user_attrs.get(ATTEMPTS, 0)
    if attempts <= max_retries:
        study.enqueue_trial(lost.params, user_attrs={RETRY_OF: lost.number, ATTEMPTS_BEFORE: attempts})
