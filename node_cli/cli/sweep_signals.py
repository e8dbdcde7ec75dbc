"""Signals to a grid whose cells run in processes of a launcher: each cell is to finish its step and save it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from node_cli.training import launched
from node_cli.training.stopping import HANDLED, STATUS, Stopped, handling


@contextmanager
def passing_on() -> Iterator[list[signal.Signals]]:
    """Within it a signal goes on to the processes that this one has started; the list holds what came.

    Raises:
        Stopped: there are none: the cells run here, one by one, or as jobs of a cluster, which go on.
    """
    asked: list[signal.Signals] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        workers = multiprocessing.active_children()
        if number == signal.SIGINT and (asked or not workers):
            raise KeyboardInterrupt
        if frame is None:  # handed on by the run that it came to, which says more
            return
        asked.append(signal.Signals(number))
        if len(asked) > 1:  # they are at it
            return
        if not workers:
            raise Stopped(f"stopped by {asked[0].name}", STATUS[asked[0]])
        for worker in workers:
            worker.terminate()  # SIGTERM; a terminal has sent SIGINT to all, and a second one would end them at once

    with handling(HANDLED, pass_on), launched.parent_told():
        yield asked


class Worker:
    """What a process knows of itself that a launcher keeps for many cells."""

    stopped = False  # then the cells that wait for it are not begun

    @staticmethod
    def is_this() -> bool:
        """Whether it is one."""
        return multiprocessing.current_process().name != "MainProcess"
