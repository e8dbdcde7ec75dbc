"""How a run is asked to end before its time: by a signal, or by the clock. Needs no torch."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, ClassVar

from node_cli.training import launched

PROCESS_STARTED = time.monotonic()
AGAIN = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, and the same again goes on
TIME_IS_UP = signal.SIGALRM  # stands for the clock: nothing sends it
STATUS = {
    signal.SIGTERM: 128 + signal.SIGTERM,
    signal.SIGINT: 128 + signal.SIGINT,
    signal.SIGUSR1: AGAIN,  # SLURM's warning before the end of a job (sbatch --signal=USR1@120)
    signal.SIGUSR2: AGAIN,  # that of submitit
    TIME_IS_UP: AGAIN,
}
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
NO_TIME = "is over before this process has finished a step or an epoch: set more than starting and one of them take"


class StopAskedError(Exception):
    """Raised between two steps to stop the run; its argument is the number of the signal."""


class Stopped(BaseException):
    """A run was asked to end, and all it has done is saved. No error: what handles failures must let it pass.

    `status` is that of the process: 143 and 130 after SIGTERM and SIGINT, 75 where the same command should go on.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def handling(numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Within it `handler` gets these signals, but for those that the parent ignores (`nohup`, or `&` in a script).

    Once one has come, or what is within was stopped, this process is about to end, and nothing is left to be saved: a
    signal that would kill it then, and change its status, is ignored from there on.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number, known in before.items() if known != signal.SIG_IGN]
    came: list[int] = []

    def noting(number: int, frame: FrameType | None) -> None:
        came.append(number)
        handler(number, frame)

    for number in taken:
        signal.signal(number, noting)
    try:
        yield
    except Stopped as stopped:
        came.append(stopped.status)
        raise
    finally:
        for number in taken:
            is_deadly = before[number] in (signal.SIG_DFL, signal.default_int_handler)
            signal.signal(number, signal.SIG_IGN if came and is_deadly else before[number])


class Stopping:
    """Within it a signal ends nothing: it is remembered, and the run asks at the boundaries of its steps.

    A second SIGINT interrupts at once. On the way out a warning is handed on to whoever listened before (submitit
    puts its job back into the queue).
    """

    got_on: ClassVar[bool] = False  # whether any run of this process has finished a step or an epoch
    missed: ClassVar[signal.Signals | None] = None  # a signal to a run that came to its end all the same

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._saves = True
        self._has_failed = False
        self._longest = 0.0  # seconds of anything between two looks at the clock
        self._before: dict[signal.Signals, Any] = {}
        self._handling = ExitStack()

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            self._before = {number: signal.getsignal(number) for number in WARNINGS}
            self._handling.enter_context(handling(HANDLED, self._remember))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._handling.__exit__(kind, error, trace)
        if self._has_failed and launched.is_one_of_several():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent to all that are left; this one says why
        if self._asked is not None and error is None:
            Stopping.missed = self._asked
        listener = self._before.get(self._asked) if self._asked in WARNINGS else None
        if callable(listener):
            listener(self._asked, None)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it a signal ends the run where it is: nothing is there yet to be saved, and a download may take hours.

        Raises:
            Stopped: one has come.
        """
        self._saves = False
        self._end_unless_it_saves()
        yield
        self._saves = True

    def failed(self) -> None:
        """From now on a signal changes nothing: the run ends with an error, which is still to be written down."""
        self._has_failed = True

    def _end_unless_it_saves(self) -> None:
        if self._asked is not None and not self._saves:
            raise Stopped(f"stopped by {self._asked.name} before the first step", STATUS[self._asked])

    def took(self, seconds: float) -> None:
        """Notes how long a step, a part of an evaluation or a save took: there must be time for another one."""
        self._longest = max(self._longest, seconds)

    def asked_by(self, max_seconds: float | None) -> int:
        """The number of the signal to stop for; 0: go on. The time is up when twice the longest step is not left."""
        if self._asked is not None:
            return self._asked
        is_late = max_seconds is not None and time.monotonic() - PROCESS_STARTED > max_seconds - 2 * self._longest
        return TIME_IS_UP if is_late else 0

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._asked == signal.SIGINT:
            raise KeyboardInterrupt
        is_first, self._asked = self._asked is None, signal.Signals(number)
        self._end_unless_it_saves()
        again = "; once more ends at once" if number == signal.SIGINT else ""
        if launched.rank() == 0 and (is_first or again) and not self._has_failed:
            with suppress(OSError):
                os.write(2, f"\n{self._asked.name}: this step is finished and saved{again}\n".encode())


def reason(number: int) -> str:
    """What a run was stopped by, in words."""
    return "trainer.max_seconds" if number == TIME_IS_UP else signal.Signals(number).name
