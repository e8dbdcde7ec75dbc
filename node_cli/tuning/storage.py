"""Where a study is kept: a journal file of its own, or a data base that Optuna knows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.study import StudyDirection

from node_cli.analysis.report.writing import make_folder
from node_cli.config import ConfigError
from node_cli.tuning.settings import Settings

BEGUN = "begun"  # what the study was begun with


class JournalLock(BaseJournalFileLock):
    """A lock that ends with its process: Optuna's own outlives a killed one by half a minute."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def open_study(settings: Settings, begun: dict[str, Any]) -> optuna.Study:
    """The study of this name, made if it is not there; `begun` are the search space and the words of every trial.

    Raises:
        ConfigError: it cannot be reached or written, or was begun with another search space or other words.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if settings.storage is None:
        make_folder(settings.path)
    directions = [StudyDirection.MAXIMIZE if o.maximize else StudyDirection.MINIMIZE for o in settings.objectives]
    place = settings.storage or settings.path / "journal.log"
    try:
        study = optuna.create_study(
            storage=_storage(settings), study_name=settings.name, directions=directions, load_if_exists=True
        )
    except Exception as error:  # each data base has errors of its own
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(f"tune.storage: {_without_password(str(place))} cannot be reached: {first}") from error
    make_folder(settings.path)
    known = study.user_attrs.get(BEGUN)
    if known is None:
        study.set_user_attr(BEGUN, json.dumps(begun))
    else:
        _check_same(settings, json.loads(known), begun)
    return study


def _storage(settings: Settings) -> BaseStorage:
    if settings.storage is not None:
        return RDBStorage(settings.storage)
    path = settings.path / "journal.log"
    return JournalStorage(JournalFileBackend(str(path), JournalLock(path.with_name("journal.lock"))))


def _check_same(settings: Settings, was: dict[str, Any], now: dict[str, Any]) -> None:
    for key, name in (("space", "another search space"), ("objectives", "other objectives"), ("words", "other words")):
        if was[key] != now[key]:
            shown = f" ({' '.join(was[key]) or 'none'})" if key != "space" else ""
            raise ConfigError(
                f"tune.name: {settings.path} was begun with {name}{shown}: give the same, or another tune.name"
            )


def _without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)
