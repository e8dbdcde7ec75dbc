"""Two compilations at once: a copy of the process fills the compiler's cache with what the process needs next."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import torch

HEAD_START = 3.0  # s before the copy begins: two cores may share what one needs, and what is useless ends by then
BETWEEN_LOOKS = 0.02  # s
CACHE = "TORCHINDUCTOR_CACHE_DIR"
Work = Callable[[], object]


def beside(work: Work | None, cache: str, *, is_useless: Callable[[], bool]) -> AbstractContextManager[None]:
    """While the block runs, a copy of this process does `work`; it gets as long again as the block took to finish it.

    Only what it puts into the compiler's `cache` remains of it, once it is done: until then, it has a cache of its own.
    It may fail: what it was to do has then still to be done. It ends with the block if that shows that it `is_useless`.
    Nothing is done where a process cannot be copied safely, or has no second processor.
    """
    is_safe = sys.platform == "linux" and not torch.cuda.is_initialized()
    if work is None or not is_safe or len(os.sched_getaffinity(0)) < 2:
        return nullcontext()
    try:
        own = Path(tempfile.mkdtemp(prefix="beside-", dir=cache))
    except OSError:
        return nullcontext()
    return _done_by_a_copy(work, own, is_useless)


@contextmanager
def _done_by_a_copy(work: Work, own: Path, is_useless: Callable[[], bool]) -> Iterator[None]:
    pid, status = None, None
    # A signal must not run in the copy what it runs here.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        try:
            pid = _copied(work, own)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        begin = time.monotonic()
        yield
        if pid is not None:
            status = _status(pid, 2 * time.monotonic() - begin, is_useless)
    finally:
        if pid is not None and status is None:
            _end(pid)
        if status == 0:
            _move(own, own.parent)
        shutil.rmtree(own, ignore_errors=True)


def _copied(work: Work, own: Path) -> int | None:
    """The number of the process that does the work; None: there is no room for one more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which the copy has none of: it compiles, and ends
        try:
            pid = os.fork()
        except OSError:
            return None
        if pid == 0:
            _do(work, own)
    with suppress(OSError):  # the copy was faster, or has ended
        os.setpgid(pid, pid)
    return pid


def _status(pid: int, until: float, is_useless: Callable[[], bool] = lambda: False) -> int | None:
    """That of the copy once it has ended; None: it has not by then, or is useless."""
    while True:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # somebody else was told
            return -1
        if ended:
            return status
        if is_useless() or time.monotonic() > until:
            return None
        time.sleep(BETWEEN_LOOKS)


def _end(pid: int) -> None:
    """With the compilers that it has started, which delete what they have written by halves if they can."""
    for number, seconds in ((signal.SIGTERM, 1.0), (signal.SIGKILL, math.inf)):
        if _status(pid, 0) is not None:  # its number may be another's by now
            return
        with suppress(ProcessLookupError):
            os.killpg(pid, number)
        _status(pid, time.monotonic() + seconds)


def _do(work: Work, own: Path) -> None:
    """In the copy, which says nothing and ends here: what the process had opened is not flushed or closed twice."""
    status = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        logging.disable()
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 -- up to the end
        for stream in (1, 2):  # of what it calls
            os.dup2(sys.stdout.fileno(), stream)
        os.environ[CACHE] = str(own)
        time.sleep(HEAD_START)
        work()
        status = 0
    finally:
        os._exit(status)


def _move(own: Path, cache: Path) -> None:
    """All files into the cache, each at once; what is there already stays."""
    for path in own.rglob("*"):
        place = cache / path.relative_to(own)
        if path.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)
