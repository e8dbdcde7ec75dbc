"""Two compilations at once: a second process fills the compiler's cache with what this one needs next."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import torch

BETWEEN_LOOKS = 0.02  # s


def beside(work: Callable[[], object] | None, *, is_useless: Callable[[], bool]) -> AbstractContextManager[None]:
    """While the block runs, a copy of this process does `work`; it gets as long again as the block took to finish it.

    Only the files that it writes remain of it. It may fail: what it was to do has then still to be done. It ends with
    the block if that shows that it `is_useless`. Nothing is done where a process cannot be copied safely, or has no
    second processor.
    """
    is_safe = sys.platform == "linux" and not torch.cuda.is_initialized()
    if work is None or not is_safe or len(os.sched_getaffinity(0)) < 2:
        return nullcontext()
    return _done_by_a_copy(work, is_useless)


@contextmanager
def _done_by_a_copy(work: Callable[[], object], is_useless: Callable[[], bool]) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which the copy has none of: it compiles, and ends
        pid = os.fork()
    if pid == 0:
        _do(work)
    with suppress(ProcessLookupError):
        os.setpgid(pid, pid)  # with the compilers that it starts
    has_ended, begin = False, time.monotonic()
    try:
        yield
        until = 2 * time.monotonic() - begin
        while not (has_ended := os.waitpid(pid, os.WNOHANG)[0] == pid) and time.monotonic() < until:
            if is_useless():
                break
            time.sleep(BETWEEN_LOOKS)
    finally:
        if not has_ended:
            os.killpg(pid, signal.SIGTERM)  # at which a compiler deletes what it has written by halves
            os.waitpid(pid, 0)


def _do(work: Callable[[], object]) -> None:
    """In the copy, which says nothing and ends here: what the process had opened is not flushed or closed twice."""
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        logging.disable()
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 -- up to the end
        for stream in (1, 2):  # of what it calls
            os.dup2(sys.stdout.fileno(), stream)
        work()
    finally:
        os._exit(0)
