"""The worker processes of a study as seen from the command: begun, begun again after a kill, and asked to end."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from node_cli.training.launched import naming_parent
from node_cli.training.stopping import STATUS, WARNINGS, Stopped, handling


def run_workers(work: Callable[[], None], count: int, restarts: int) -> None:
    """Runs `work` in `count` processes until no trial is left; one that was killed is started again, so many times."""
    running: list[BaseProcess] = []
    with _ending_together(running), naming_parent():
        running += [_started(work) for _ in range(count)]
        while running:
            wait([process.sentinel for process in running])
            for process in [process for process in running if not process.is_alive()]:
                running.remove(process)
                status = process.exitcode or 0
                if status > 0:  # it has said why
                    sys.exit(status)
                if status < 0 and restarts:
                    restarts -= 1
                    running.append(_started(work))


def _started(work: Callable[[], None]) -> BaseProcess:
    """A worker; Ctrl-C, which a terminal sends to all processes, is for the command alone, which passes it on."""
    process = multiprocessing.get_context("spawn").Process(target=work, daemon=True)
    resource_tracker.ensure_running()  # which would let SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


@contextmanager
def _ending_together(running: list[BaseProcess]) -> Iterator[None]:
    """Whatever ends the command asks its workers to end; each saves its step first, unless Ctrl-C comes again."""
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        try:
            for process in running:
                process.join()
        except KeyboardInterrupt:
            for process in running:
                process.kill()
            raise


@contextmanager
def signals_stop() -> Iterator[None]:
    """Within it SIGTERM and the warnings of a job's end stop the command, as Ctrl-C does; a second one does nothing."""
    asked: list[signal.Signals] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        asked.append(signal.Signals(number))
        if len(asked) == 1:
            raise Stopped(f"stopped by {asked[0].name}: the same command goes on", STATUS[asked[0]])

    with handling((signal.SIGTERM, *WARNINGS), stop):
        yield
