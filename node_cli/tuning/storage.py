"""Where a study is kept: a journal file of its own, or a data base that Optuna knows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.study import StudyDirection

from node_cli.config import ConfigError
from node_cli.passwords import without_passwords
from node_cli.runs.outcome import RunFailedError
from node_cli.runs.report.writing import make_folder
from node_cli.tuning.heartbeat import BEAT, quietly, retry_elsewhere
from node_cli.tuning.journal import Journal
from node_cli.tuning.settings import Settings

BEGUN = "begun"  # what the study was begun with
OTHER = {"space": "another search space", "objectives": "other objectives", "words": "other overrides"}
STORAGE_ERRORS = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
OPENINGS = 3  # to open a data base in which another command is making the tables
DRIVERS = {  # what to install for the modules that SQLAlchemy asks for
    "psycopg": "pip install 'psycopg[binary]'",
    "psycopg2": "pip install psycopg2-binary",
    "pymysql": "pip install pymysql",
    "MySQLdb": "pip install pymysql, and write mysql+pymysql://",
}


def open_study(settings: Settings, begun: dict[str, Any]) -> optuna.Study:
    """The study of this name, made if there is none; `begun` are the search space and the overrides of every trial.

    Raises:
        ConfigError: it cannot be reached or written, or was begun with another search space or other overrides.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if settings.storage is None:
        make_folder(settings.path)
    directions = [StudyDirection.MAXIMIZE if o.maximize else StudyDirection.MINIMIZE for o in settings.objectives]
    try:
        storage: BaseStorage = (
            JournalStorage(Journal(settings.path / "journal.log"))
            if settings.storage is None
            else _database(settings.storage, settings)
        )
        study = optuna.create_study(
            storage=storage, study_name=settings.name, directions=directions, load_if_exists=True
        )
    except Exception as error:  # each data base has errors of its own
        raise ConfigError(what_is_wrong(settings, error)) from error
    make_folder(settings.path)
    known = study.user_attrs.get(BEGUN)
    if known is None:
        study.set_user_attr(BEGUN, json.dumps(begun))
    else:
        _check_same(settings, known, begun)
    return study


def _database(url: str, settings: Settings) -> RDBStorage:
    """Two commands may make the tables at the same moment: who comes second fails, and finds them a little later."""
    if url.startswith("sqlite") and sqlalchemy.make_url(url).database in (None, "", ":memory:"):
        raise ValueError("it is in memory, where no other process sees it: name a file, sqlite:///studies.db")
    arguments = {"timeout": 60} if url.startswith("sqlite") else {}  # as long as a command waits for another
    for attempt in range(OPENINGS):
        try:
            with quietly():
                return RDBStorage(
                    url,
                    {"pool_pre_ping": True, "connect_args": arguments},  # the server may be started anew meanwhile
                    heartbeat_interval=BEAT,
                    grace_period=settings.lost_after,
                    heartbeat_stale_trial_callback=partial(retry_elsewhere, max_retries=settings.max_retries),
                )
        except Exception:
            if attempt == OPENINGS - 1 or not _answers(url):
                raise
            time.sleep(1)
    raise AssertionError


def what_is_wrong(settings: Settings, error: Exception) -> str:
    """One line about a storage that cannot be used."""
    if settings.storage is None:
        return str(error)
    place, cause = settings.storage, error.__cause__
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        needed = f"needs {cause.name}: {DRIVERS.get(cause.name, f'pip install {cause.name}')}"
        return f"tune.storage: {without_passwords(place)} {needed}"
    original = cause if isinstance(error, optuna.exceptions.StorageInternalError) and cause else error
    first = str(original).strip().partition("\n")[0]
    return f"tune.storage: {without_passwords(place)} cannot be reached: {without_passwords(first, place)}"


@contextmanager
def reporting_storage_errors(settings: Settings) -> Iterator[None]:
    """Turns the loss of the storage midway into a RunFailedError, which says so in one line."""
    try:
        yield
    except STORAGE_ERRORS as error:
        raise RunFailedError(f"{what_is_wrong(settings, error)}: the same command goes on when it is back") from error


def _answers(url: str) -> bool:
    try:
        sqlalchemy.create_engine(url).connect().close()
    except Exception:  # each data base has errors of its own
        return False
    return True


def _check_same(settings: Settings, known: Any, now: dict[str, Any]) -> None:
    """Holds what the study was begun with, as it recorded that, against what is asked for now."""
    try:
        was = json.loads(known)
        if not all(isinstance(was[key], list) and all(isinstance(text, str) for text in was[key]) for key in OTHER):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"tune.name: {settings.path} is damaged: it does not tell what it was begun with") from error
    for key, name in OTHER.items():
        if was[key] != now[key]:
            shown = f" ({' '.join(was[key]) or 'none'})" if key != "space" else ""
            raise ConfigError(
                f"tune.name: {settings.path} was begun with {name}{shown}: give the same, or another tune.name"
            )
