"""What every command shares: `--version`, checks before Hydra runs anything, one-line errors."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import FrameType

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from node_cli import __version__
from node_cli.cli.compose import CommandLine, check_keys, checked_config, for_every_choice, hydra_ready, typed_packages
from node_cli.cli.errors import one_line_errors
from node_cli.cli.help import help_text
from node_cli.cli.own_files import searched
from node_cli.cli.streams import output_may_be_lost
from node_cli.config import ConfigError, config_dir
from node_cli.runs.outcome import RunFailedError
from node_cli.training import launched
from node_cli.training.stopping import STATUS, WARNINGS, Stopped, handling

ALONE = {"--run": "run", "-m": "multirun", "--cfg": "cfg", "--info": "info", "-sc": "shell_completion"}
COMPLETION = ("install", "uninstall", "query")
SWITCHES = ("run", "multirun", "resolve", "hydra_help", "shell_completion")  # flags of Hydra that it may have
VALUES = ("cfg", "info", "package")


def launch(
    name: str,
    run: Callable[[DictConfig], None],
    expand: Callable[[list[str]], list[str]] = lambda overrides: overrides,
    sweep: Callable[[CommandLine], AbstractContextManager[list[str]]] = lambda line: nullcontext([]),
    *,
    needs_output: bool = True,
) -> None:
    """Runs `run` with the config `<name>.yaml` as the command line changes it, or answers --help, --cfg and the like.

    `expand` turns the overrides as typed into those that are meant. `sweep` is held open while the cells of a sweep
    run, and gives further overrides for them. Where a run does not need its output, that may be lost.
    """
    program = f"node-{name}"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets hydra.main raise, so that a mistake can be told in one line
    os.environ["PYTHONSAFEPATH"] = "1"  # for processes started from here: no module lies in the working folder
    early = () if launched.is_one_of_several() else (signal.SIGTERM, *WARNINGS)  # whoever has started them says it
    with one_line_errors(program), handling(early, _stop):
        if "--version" in sys.argv[1:]:
            sys.stdout.write(f"{program} {__version__}\n")
            return
        args = get_args_parser().parse_args()
        if args.help:
            sys.stdout.write(help_text(name, args.config_dir) + "\n")
            return
        _check_flags(args)
        more = [] if args.config_dir is None else [searched(args.config_dir)]
        if not (args.hydra_help or args.shell_completion or args.info):
            typed = args.overrides
            args.overrides = expand(typed)
            line = _checked_line(name, args, typed)
            if not (args.cfg or needs_output):
                output_may_be_lost()
            if args.multirun and not args.cfg:
                with sweep(line) as of_sweep:
                    words = for_every_choice(name, args.overrides)
                    sys.argv[1:] = [*_flags(args), *words, *more, *of_sweep]
                    _run_hydra(name, run)
                return
        sys.argv[1:] = [*_flags(args), *args.overrides, *more]
        _run_hydra(name, run)


def _flags(args: Namespace) -> list[str]:
    """Those that are Hydra's business, as it reads them."""
    flags = [f"--{name.replace('_', '-')}" for name in SWITCHES if getattr(args, name)]
    return flags + [f"--{name}={value}" for name in VALUES if (value := getattr(args, name)) is not None]


def _stop(number: int, frame: FrameType | None) -> None:
    """Before there is anything to be finished or saved."""
    if frame is None:  # handed on by the run that it came to, which says more
        return
    asked = signal.Signals(number)
    raise Stopped(f"stopped by {asked.name} before the first step", STATUS[asked])


def _check_flags(args: Namespace) -> None:
    asked = [flag for flag, name in ALONE.items() if getattr(args, name)]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} do not go together: leave all but one out")
    for flag, value in (("--resolve", args.resolve), ("--package", args.package)):
        if value and not (args.cfg or args.help):
            raise ConfigError(f"{flag} goes with --cfg job alone: add it, or leave {flag} out")
    if args.experimental_rerun is not None:  # which would unpickle the file
        raise ConfigError("--experimental-rerun is not used here: resume=... continues a run")
    for flag, value in (("--config-path", args.config_path), ("--config-name", args.config_name)):
        if value is not None:
            raise ConfigError(f"{flag} is not used here: --config-dir FOLDER adds a folder of YAML files")
    if args.shell_completion and args.config_dir is not None:
        raise ConfigError("--config-dir is not used with --shell-completion")
    if args.shell_completion and not any(word.partition("=")[0] in COMPLETION for word in args.overrides):
        raise ConfigError(f"--shell-completion needs one of {', '.join(f'{word}=SHELL' for word in COMPLETION)}")


def _run_hydra(name: str, run: Callable[[DictConfig], None]) -> None:
    failures: list[Exception] = []
    hydra.main(version_base="1.3", config_path=config_dir(), config_name=name)(_keeping(failures, run))()
    _raise_together(failures)


def _keeping(failures: list[Exception], run: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """`run`, its errors kept for later: Hydra would print them its own way, and all but the first not at all."""

    def keeping(cfg: DictConfig) -> None:
        try:
            run(cfg)
        except Exception as error:
            failures.append(error)

    return keeping


def _raise_together(failures: list[Exception]) -> None:
    bugs = [error for error in failures if not isinstance(error, (ConfigError, RunFailedError))]
    if bugs or len(failures) == 1:
        raise (bugs or failures)[0]
    if failures:
        raise RunFailedError("\n".join(str(error) for error in failures))


def _checked_line(name: str, args: Namespace, typed: list[str]) -> CommandLine:
    line = CommandLine(name, args.overrides, args.config_dir)
    with hydra_ready(line):
        line = replace(line, packages=typed_packages(typed))
        cells = line.cells()
        if args.multirun:
            for cell in cells:
                if checked_config(cell).get("resume") is not None:
                    raise ConfigError("resume continues one run: leave -m out")
        elif len(cells) > 1:
            several = [text for text in line.overrides if "," in text or "(" in text]  # a,b or glob(*)
            texts = "add -m to run each, or [...] for one list, or '...' for one text"
            raise ConfigError(f"{' '.join(several)} names several values: {texts}")
        elif args.cfg:
            check_keys(line)
        elif any(word.startswith("sweep.") for word in line.overrides):
            raise ConfigError("sweep.name and sweep.resume are those of a sweep: add -m")
        elif any(word.startswith(("hydra/launcher", "hydra.launcher")) for word in line.overrides):
            raise ConfigError("hydra/launcher runs the cells of a sweep: add -m, or leave it out")
        else:
            checked_config(line)
    return line
