"""What every command of a config shares: its options, checks before Hydra runs anything, one-line errors."""

from __future__ import annotations

import os
import signal
import string
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from node_cli import __version__
from node_cli.cli.compose import (
    CommandLine,
    Composed,
    checked,
    checked_config,
    for_every_choice,
    groups_in,
    hydra_ready,
    typed_packages,
    with_known_keys,
)
from node_cli.cli.errors import Parser, one_line_errors, output_may_be_lost
from node_cli.cli.overrides import Override, parse, texts_of
from node_cli.cli.own_files import searched
from node_cli.config import ConfigError, config_dir
from node_cli.runs.outcome import RunFailedError
from node_cli.training import launched
from node_cli.training.stopping import STATUS, WARNINGS, Stopped, handling
from node_cli.yaml_file import read_yaml

ALONE = {"--run": "run", "-m": "multirun", "--cfg": "cfg", "--info": "info", "-sc": "shell_completion"}
COMPLETION = ("install=", "uninstall=", "query=")
SWITCHES = ("run", "multirun", "resolve", "hydra_help", "shell_completion")  # flags that are handed on to Hydra
VALUES = ("cfg", "info", "package")
INFOS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
REFUSED = {  # of Hydra's flags; the last one would unpickle the file
    "config_path": "--config-dir FOLDER adds a folder of YAML files",
    "config_name": "--config-dir FOLDER adds a folder of YAML files",
    "experimental_rerun": "resume=... continues a run",
}


def launch(
    name: str,
    run: Callable[[Composed], None],
    expand: Callable[[list[Override]], list[Override]] = lambda overrides: overrides,
    sweep: Callable[[CommandLine], AbstractContextManager[list[str]]] = lambda line: nullcontext([]),
    *,
    needs_output: bool = True,
) -> None:
    """Runs `run` with the config `<name>.yaml` as the command line changes it, or answers --help, --cfg and the like.

    A config is composed here, and each job of a sweep by Hydra, which also answers what is asked of it.

    `expand` turns the overrides as typed into those that are meant. `sweep` is held open while the jobs of a sweep
    run, and gives further overrides for them. Where a run does not need its output, that may be lost.
    """
    program = f"node-{name}"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets hydra.main raise, so that a mistake can be told in one line
    os.environ["PYTHONSAFEPATH"] = "1"  # for processes started from here: no module lies in the working folder
    early = () if launched.is_one_of_several() else (signal.SIGTERM, *WARNINGS)  # whoever has started them says it
    with one_line_errors(program), handling(early, _stop):
        args = _parser(program).parse_intermixed_args()
        if args.version:
            sys.stdout.write(f"{program} {__version__}\n")
            return
        if args.help:
            sys.stdout.write(help_text(name, args.config_dir) + "\n")
            return
        _check_flags(args)
        if args.hydra_help or args.shell_completion or args.info:
            _run_hydra(name, run, args, args.overrides)
            return
        typed = parse(args.overrides)
        line = CommandLine(name, expand(typed), args.config_dir, typed_packages(typed))
        if args.cfg:
            _show(line, run, args)
            return
        composed = _checked(line, multirun=args.multirun)
        if not needs_output:
            output_may_be_lost()
        if composed is not None:
            run(composed)
            return
        with sweep(line) as of_sweep:
            _run_hydra(name, run, args, [*texts_of(for_every_choice(name, line.overrides)), *of_sweep])


def help_text(name: str, extra_config_dir: str | None) -> str:
    """The template in `<name>.yaml` with every group of its defaults list and the choices that there are.

    Hydra would list its own groups first, and take twice as long.
    """
    template = read_yaml(Path(config_dir(), f"{name}.yaml"))["hydra"]["help"]["template"]
    folders = [Path(folder) for folder in (config_dir(), extra_config_dir) if folder is not None]
    lines = []
    for group in groups_in(name):
        choices = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        lines.append(f"{group}: {', '.join(sorted(choices))}")
    return string.Template(template).substitute(APP_CONFIG_GROUPS="\n".join(lines))


def _parser(program: str) -> Parser:
    """The flags of Hydra, which reads them once more; a mistake in them is one line."""
    parser = Parser(program, add_help=False)
    parser.add_argument("overrides", nargs="*")
    for names in (
        *(("--help", "-h"), ("--hydra-help",), ("--version",), ("--resolve",), ("--run", "-r"), ("--multirun", "-m")),
        ("--shell-completion", "-sc"),
    ):
        parser.add_argument(*names, action="store_true")
    parser.add_argument("--cfg", "-c", choices=("job", "hydra", "all"))
    parser.add_argument("--info", "-i", choices=INFOS, nargs="?", const="all")
    for names in (("--package", "-p"), ("--config-dir", "-cd"), ("--config-path", "-cp"), ("--config-name", "-cn")):
        parser.add_argument(*names)
    parser.add_argument("--experimental-rerun")
    return parser


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _flags(args: Namespace) -> list[str]:
    """Those that are Hydra's business, as it reads them."""
    flags = [_flag(name) for name in SWITCHES if getattr(args, name)]
    return flags + [f"{_flag(name)}={value}" for name in VALUES if (value := getattr(args, name)) is not None]


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
        if value and not args.cfg:
            raise ConfigError(f"{flag} goes with --cfg job alone: add it, or leave {flag} out")
    for name, instead in REFUSED.items():
        if getattr(args, name) is not None:
            raise ConfigError(f"{_flag(name)} is not used here: {instead}")
    if args.shell_completion and args.config_dir is not None:
        raise ConfigError("--config-dir is not used with --shell-completion")
    if args.shell_completion and not any(text.startswith(COMPLETION) for text in args.overrides):
        raise ConfigError(f"--shell-completion needs one of {', '.join(f'{each}SHELL' for each in COMPLETION)}")


def _run_hydra(name: str, run: Callable[[Composed], None], args: Namespace, texts: Iterable[str]) -> None:
    own_files = [] if args.config_dir is None else [searched(args.config_dir)]
    sys.argv[1:] = [*_flags(args), *texts, *own_files]
    failures: list[Exception] = []
    hydra.main(version_base="1.3", config_path=config_dir(), config_name=name)(_keeping(failures, run))()
    _raise_together(failures)


def _keeping(failures: list[Exception], run: Callable[[Composed], None]) -> Callable[[DictConfig], None]:
    """`run`, its errors kept for later: Hydra would print them its own way, and all but the first not at all."""

    def keeping(cfg: DictConfig) -> None:
        try:
            job = HydraConfig.get()
            run(Composed.of(cfg, job, parse(job.overrides.task)))
        except Exception as error:
            failures.append(error)

    return keeping


def _raise_together(failures: list[Exception]) -> None:
    bugs = [error for error in failures if not isinstance(error, (ConfigError, RunFailedError))]
    if bugs or len(failures) == 1:
        raise (bugs or failures)[0]
    if failures:
        raise RunFailedError("\n".join(str(error) for error in failures))


def _show(line: CommandLine, run: Callable[[Composed], None], args: Namespace) -> None:
    """What --cfg asks for."""
    with hydra_ready(line):
        _check_is_one(line)
        cfg = with_known_keys(line)
    if args.cfg != "job" or args.package is not None:
        _run_hydra(line.config_name, run, args, texts_of(line.overrides))
        return
    if args.resolve:
        OmegaConf.resolve(cfg)
    sys.stdout.write(OmegaConf.to_yaml(cfg))


def _checked(line: CommandLine, *, multirun: bool) -> Composed | None:
    """What is to be run, unless that is a sweep."""
    with hydra_ready(line):
        if multirun:
            for job in line.jobs():
                if checked_config(job).get("resume") is not None:
                    raise ConfigError("resume continues one run: leave -m out")
            return None
        _check_is_one(line)
        if any(each.key.startswith("sweep.") for each in line.overrides):
            raise ConfigError("sweep.name and sweep.resume are those of a sweep: add -m")
        if any(each.key.startswith(("hydra/launcher", "hydra.launcher")) for each in line.overrides):
            raise ConfigError("hydra/launcher runs the jobs of a sweep: add -m, or leave it out")
        return checked(line)


def _check_is_one(line: CommandLine) -> None:
    if len(line.jobs()) > 1:
        several = " ".join(each.text for each in line.overrides if each.is_sweep)
        texts = "add -m to run each, or [...] for one list, or '...' for one text"
        raise ConfigError(f"{several} names several values: {texts}")
