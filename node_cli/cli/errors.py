"""One line on stderr for what is not our bug, and the exit status that says which kind it was."""

from __future__ import annotations

import difflib
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from node_cli.cli.commands import INTERRUPTED
from node_cli.cli.streams import OutputError, bearing_streams, output_may_be_lost
from node_cli.cli.unreadable import advice
from node_cli.config import ConfigError, config_dir, printable
from node_cli.files import UnwrittenError
from node_cli.passwords import without_passwords
from node_cli.runs.outcome import STATUS_FAILED, STATUS_USAGE, RunFailedError
from node_cli.training import launched
from node_cli.training.launched import OUTCOMES, ProcessLostError
from node_cli.training.stopping import Stopped

OF_THE_EXTRA = ("joblib", "submitit_local", "submitit_slurm")  # launchers that the extra `sweep` brings


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
