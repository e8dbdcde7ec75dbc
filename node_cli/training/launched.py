"""What has started this process, torchrun say, and what it says of it. Needs no torch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

PARENT = "NODE_CLI_PARENT"  # the process that has started this one, for which it works
OUTCOMES = "NODE_CLI_OUTCOMES"  # a folder in which processes of one command leave how they ended, for it to report
VARIABLES = (
    *("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
)


class ProcessLostError(RuntimeError):
    """Another process of those that train together is gone."""


def rank() -> int:
    """The number of this process, 0 for the first, which alone writes and speaks."""
    return int(os.environ.get("RANK", "0")) if is_one_of_several() else 0


def count() -> int:
    """How many processes train together, on all machines."""
    return int(os.environ["WORLD_SIZE"]) if is_one_of_several() else 1


def local_rank() -> int:
    """The number of this process on its machine: its GPU."""
    return int(os.environ["LOCAL_RANK"]) if is_one_of_several() else 0


def local_count() -> int:
    """How many of them run on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if is_one_of_several() else 1


def was_started_again() -> bool:
    """Whether these processes replace some that died."""
    return is_one_of_several() and int(os.environ["TORCHELASTIC_RESTART_COUNT"]) > 0


@contextmanager
def naming_parent() -> Iterator[None]:
    """Within it, processes that are started know this one as their parent, though it may be gone when they ask."""
    before = os.environ.get(PARENT)
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(PARENT) if before is None else os.environ.update({PARENT: before})


@cache
def end_with_parent() -> None:
    """From now on this process ends when the one that has started it does: whoever kills that one means both."""
    parent = int(os.environ.get(PARENT, os.getppid()))
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def is_one_of_several() -> bool:
    """Whether the elastic launcher of torch has started this process."""
    return all(name in os.environ for name in VARIABLES)
