"""How a command ends: its output may be closed or full, a mistake is one line, and the exit status says which kind.

What trains bears a lost output, as all that it says is in files too; a command whose output is all that it does ends
with a line.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from node_cli.cli.entry_points import INTERRUPTED
from node_cli.cli.overrides import advice
from node_cli.config import ConfigError, config_dir, printable
from node_cli.files import UnwrittenError
from node_cli.passwords import without_passwords
from node_cli.runs.outcome import STATUS_FAILED, STATUS_USAGE, RunFailedError
from node_cli.training import launched
from node_cli.training.launched import OUTCOMES, ProcessLostError
from node_cli.training.stopping import Stopped

OF_THE_EXTRA = ("joblib", "submitit_local", "submitit_slurm")  # launchers that the extra `sweep` brings

logging.getLogger("hydra.utils").addHandler(logging.NullHandler())  # what it logs, it raises as well


class Parser(ArgumentParser):
    """One whose mistakes are ours."""

    def error(self, message: str) -> NoReturn:
        """Raises it."""
        raise ConfigError(message)


@contextmanager
def one_line_errors(program: str, *, needs_output: bool = True) -> Iterator[None]:
    """Ends the process with one line for a mistake (2), a failed run (1), a run that was stopped, or Ctrl-C (130).

    Everything else is our own bug and keeps its traceback. Where the output is needed, it is a failure that it cannot
    be written, but none to be told that nobody reads it any more.
    """
    with bearing_streams(needs_output=needs_output), _told(program):
        yield
        sys.stdout.flush()


@contextmanager
def _told(program: str) -> Iterator[None]:
    try:
        yield
    except OutputError as error:
        if error.is_unread:
            sys.exit(128 + signal.SIGPIPE)
        _exit(program, str(error), STATUS_FAILED)
    except ConfigError as error:
        _exit(program, str(error), STATUS_USAGE)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{mark.name}, line {mark.line + 1}" if mark else "a YAML file"
        _exit(program, f"broken YAML in {where}: {error.problem}", STATUS_USAGE)
    except yaml.reader.ReaderError as error:
        _exit(program, f"broken YAML in {error.name}: {error.reason}", STATUS_USAGE)
    except OverrideParseException as error:
        told = advice(str(error.override), program) or f"write key=value ({_first_line(error)})"
        _exit(program, f"cannot read {error.override}: {told}", STATUS_USAGE)
    except MissingConfigException as error:
        _exit(program, _missing_choice(error), STATUS_USAGE)
    except (HydraException, OmegaConfBaseException) as error:
        _exit(program, _first_line(error), STATUS_USAGE)
    except (RunFailedError, UnwrittenError) as error:
        _exit(program, str(error), STATUS_FAILED)
    except ProcessLostError as error:  # no outcome: whoever has started both sees what became of the other one
        _write(program, str(error))
        sys.exit(STATUS_FAILED)
    except Stopped as stopped:
        _exit(program, str(stopped), stopped.status)
    except KeyboardInterrupt:
        _exit(program, "interrupted", INTERRUPTED)


def _missing_choice(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    options = error.options or sorted(path.stem for path in Path(config_dir(), group).glob("*.yaml"))
    if not group or not options:
        return _first_line(error)
    close = difflib.get_close_matches(choice, options, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    if group == "hydra/launcher" and choice in OF_THE_EXTRA:
        meant = "it comes with pip install 'node-cli[sweep]'; "
    return f"{group}={choice} does not exist: {meant}there are {', '.join(options)}"


def _first_line(error: Exception) -> str:
    """Hydra's messages run over several lines, the cause in one of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = str(error.__cause__).splitlines()[0] if error.__cause__ else ""
    return ". ".join(line.rstrip(".") for line in [*lines[:1], cause] if line)


def _exit(program: str, message: str, status: int) -> None:
    output_may_be_lost()
    sys.stdout.flush()
    message = without_passwords(message)
    if OUTCOMES in os.environ:
        Path(os.environ[OUTCOMES], str(launched.rank())).write_text(json.dumps([status, message]))
        sys.exit(status)
    _write(program, message)
    sys.exit(status)


def _write(program: str, message: str) -> None:
    for line in message.split("\n"):
        if line.strip():
            sys.stderr.write(f"{program}: {printable(line)}\n")


class OutputError(Exception):
    """Standard output cannot be written; `is_unread`: its reader, `head` say, has seen enough."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror}")
        self.is_unread = isinstance(error, BrokenPipeError)


class Stream:
    """A text stream whose failures are passed by, unless it `is_needed`."""

    def __init__(self, stream: TextIO, *, is_needed: bool) -> None:
        self.stream, self.is_needed = stream, is_needed

    def write(self, text: str) -> int:
        """As that of the stream, or nothing."""
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        """As that of the stream, or nothing."""
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked of a copy that has no stream yet, which would be asked for it without end
            raise AttributeError(name)
        return getattr(self.stream, name)

    def _try(self, call: Callable[..., Any], *words: str) -> None:
        try:
            call(*words)
        except OSError as error:
            if self.is_needed:
                raise OutputError(error) from error


@contextmanager
def bearing_streams(*, needs_output: bool) -> Iterator[None]:
    """Within it no write to a standard stream fails, but for one to the output where that is needed."""
    _fill_closed()
    before = sys.stdout, sys.stderr
    sys.stdout = Stream(sys.stdout, is_needed=needs_output)
    sys.stderr = Stream(sys.stderr, is_needed=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _let_go(stream)


def output_may_be_lost() -> None:
    """From now on what is done does not depend on the output."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.is_needed = False


def _fill_closed() -> None:
    """The next file would get the number of a closed stream, and all that is written to that."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, number)
            if nothing != number:
                os.close(nothing)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _let_go(stream: TextIO) -> None:
    """What cannot be written now would be an error of the interpreter's at the very end."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
            stream.flush()
