"""Commands in processes of their own, forked from one that has imported all they need: that takes the longest of it.

What forks does nothing else, so that a command finds no thread, no handler and no state there but loaded modules. The
processes that a command starts itself, to train together or to search, are forked from the command for the same reason.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from importlib import import_module
from multiprocessing.context import BaseContext, ForkProcess, SpawnProcess
from multiprocessing.forkserver import ensure_running
from multiprocessing.util import register_after_fork
from pathlib import Path
from unittest.mock import patch

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["loaded"])


def module_of(program: str) -> str:
    """`node-train` runs `node_cli.cli.train`."""
    return f"node_cli.cli.{program.removeprefix('node-')}"


class Command:
    """A command that was begun, in a session of its own; to be used like a `subprocess.Popen`.

    `program` is one of ours, `node-train`, or a module with a `main`. `out` and `err` are files for its streams. It is
    forked from the process that has imported all, or by `context` from this one. What it starts is begun anew where it
    is not `forking`.
    """

    def __init__(
        self,
        folder: Path,
        program: str,
        *words: str,
        out: str = "",
        err: str = "",
        context: BaseContext = SERVER,
        forking: bool = True,
    ) -> None:
        if context is SERVER:
            with patch.dict(os.environ, {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}):
                ensure_running()
        self._folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True).atexit = False  # that of a fork
        names = [out or str(self._folder / "out"), err or str(self._folder / "err")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        asked = (str(folder), [program, *words], environment, names, forking)
        self._process = context.Process(name="MainProcess", target=_run, args=asked)  # as a command of its own has it
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float = 600) -> int:
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"not at its end after {timeout} s: {self.said()}"
        return self._process.exitcode

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Waits for its end, and for that of what it has started in its session; what they said on both streams."""
        self.wait(timeout)
        give_up = time.monotonic() + 60
        with suppress(ProcessLookupError):
            while time.monotonic() < give_up:
                os.killpg(self.pid, 0)
                time.sleep(0.01)
        return self.said()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def kill_all(self) -> None:
        """And what it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def said(self) -> tuple[str, str]:
        """So far, on both streams."""
        out, err = (self._folder / name for name in ("out", "err"))
        return out.read_text() if out.exists() else "", err.read_text() if err.exists() else ""


def _run(folder: str, words: list[str], environment: dict[str, str], names: list[str], forking: bool) -> None:
    """In the process of the command."""
    os.setsid()
    files = {name: os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT) for name in dict.fromkeys(names)}
    for number, name in enumerate(names, 1):
        os.dup2(files[name], number)
    os.chdir(folder)
    if forking:
        SpawnProcess._Popen = staticmethod(ForkProcess._Popen)
        register_after_fork(SpawnProcess, lambda _: _forget_handlers())
        handler = import_module("torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler")
        handler.SubprocessHandler._popen = lambda _, args, env: Trainer(args, env)
    _main(module_of(words[0]) if words[0].startswith("node-") else words[0], words, environment)


def _main(module: str, words: list[str], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background processes ignore
    import_module("node_cli.training.stopping").PROCESS_STARTED = time.monotonic()
    sys.argv = words
    try:
        import_module(module).main()
    finally:  # in the order of any other process: multiprocessing would wait for its own children first
        threading._shutdown()
        atexit._run_exitfuncs()


def _forget_handlers() -> None:
    """Those of the process that this one is forked from."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)


class Trainer:
    """One of the processes that train together, as torch's launcher knows it: a `subprocess.Popen` of `python -m`."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        module, *words = arguments[arguments.index("-m") + 1 :]
        process = multiprocessing.get_context("fork").Process
        self._process = process(name="MainProcess", target=_train, args=(module, [module, *words], environment))
        self._process.start()
        while self.poll() is None and os.getpgid(self.pid) != self.pid:  # it may be sent a signal from now on
            time.sleep(0.001)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> None:
        self._process.join(timeout)


def _train(module: str, words: list[str], environment: dict[str, str]) -> None:
    """In the process of a trainer, which leaves what the launcher does at its own end to that."""
    os.setsid()
    _forget_handlers()
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    atexit.register(logging.shutdown)
    _main(module, words, environment)
