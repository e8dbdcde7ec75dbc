"""`trainer.devices=N`: the same command in N processes, through the launcher behind torchrun."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from node_cli.config import ConfigError
from node_cli.runs.outcome import STATUS_USAGE, RunFailedError
from node_cli.training import launched
from node_cli.training.launched import OUTCOMES
from node_cli.training.stopping import HANDLED, STATUS, Stopped, handling

LONGEST_STEP = "3600"  # seconds that processes which were asked to stop get for finishing their step and saving it


def run_in_processes(arguments: Sequence[str], count: int, max_restarts: int, *, sets_threads: bool) -> None:
    """Runs `node-train` with `arguments` in `count` processes; after one of them was killed, again with `resume=auto`.

    Raises:
        ConfigError, RunFailedError, Stopped: what ended them.
    """
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # which says at length what is said here in a line
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with handling(HANDLED, _ending_once()), _environment(count, sets_threads=sets_threads), launched.naming_parent():
        try:
            for attempt in range(max_restarts + 1):
                killed = _run(arguments if attempt == 0 else [*arguments, "resume=auto"], count)
                if killed is None:
                    return
                if attempt < max_restarts:
                    sys.stderr.write(f"node-train: {killed}; starting again from the last checkpoint\n")
        except SignalException as asked:
            raise _stopped(asked.sigval, "between two starts") from asked
    raise RunFailedError(f"{killed}, and trainer.max_restarts={max_restarts} is used up")


def _run(arguments: Sequence[str], count: int) -> str | None:
    """One go; what it was ended by, if a process was killed."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,  # it would start a run again that has ended with a mistake of the user's
    )
    config.signals_to_handle = "SIGHUP,SIGQUIT"  # the others are handled here
    killed: str | None = None
    with tempfile.TemporaryDirectory() as outcomes:
        os.environ[OUTCOMES] = outcomes
        try:
            elastic_launch(config, sys.executable)("-m", "node_cli.cli.train", *arguments)
        except SignalException as asked:
            _raise_outcome(outcomes, otherwise=asked.sigval)
        except ChildFailedError as error:
            ended = [(rank, failure.exitcode) for rank, failure in error.failures.items() if failure.exitcode < 0]
            if ended:
                killed = f"process {ended[0][0]} was ended by {signal.Signals(-ended[0][1]).name}"
            _raise_outcome(outcomes)
            if killed is None:
                raise RunFailedError("one of the processes failed; its traceback stands above") from error
        finally:
            del os.environ[OUTCOMES]
    return killed


def _raise_outcome(folder: str, otherwise: signal.Signals | None = None) -> None:
    """Raises what a process has said of its end, the first one's before the others'."""
    said = [json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())]
    if not said and otherwise is not None:
        raise _stopped(otherwise, "before the first step")
    for status, message in said:
        if status == STATUS_USAGE:
            raise ConfigError(message)
        if status in STATUS.values():
            raise Stopped(message, status)
        raise RunFailedError(message)


@contextmanager
def _environment(count: int, *, sets_threads: bool) -> Iterator[None]:
    """Settings of the processes."""
    settings = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": LONGEST_STEP}
    if not sets_threads:
        settings["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))
    if sys.platform == "linux":
        settings["GLOO_SOCKET_IFNAME"] = "lo"
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _ending_once() -> Callable[[int, FrameType | None], None]:
    """The first signal is passed on, and the processes end when they have saved; a second Ctrl-C ends all at once."""
    asked: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in asked:
            shutil.rmtree(os.environ.get(OUTCOMES, ""), ignore_errors=True)
            os.write(2, b"node-train: interrupted\n")
            os._exit(STATUS[signal.SIGINT])  # and the processes with this one; the launcher would wait for them
        asked.append(number)
        if len(asked) == 1:
            raise SignalException(f"process {os.getpid()} got {signal.Signals(number).name}", signal.Signals(number))

    return pass_on


def _stopped(number: signal.Signals, when: str) -> Stopped:
    return Stopped(f"stopped by {number.name} {when}", STATUS.get(number, 128 + number))
