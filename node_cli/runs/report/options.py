"""The command line of `node-report`: argparse, not Hydra, for it takes folders."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from node_cli import __version__
from node_cli.config import ConfigError
from node_cli.runs.report.formats import FORMATS

PROGRAM = "node-report"
PLOTS = ("curves", "nfe", "seconds", "memory", "horizon")
ENDINGS = ("png", "pdf", "svg")  # by the ending of a plot's name
TABLES = {".txt": "terminal", ".md": "markdown", ".csv": "csv", ".tex": "latex"}  # by the ending of --out
EXAMPLES = """examples:
  node-report outputs                                        every run; those that differ by seed alone in one row
  node-report outputs --where model=odenet 'solver.rtol<=1e-3' --by solver gradient
  node-report outputs --show test/error best_epoch --sort -test/error
  node-report outputs/sweeps/mine --out table.tex            the format by the ending: .txt .md .csv .tex
  node-report outputs/sweeps/mine --plot curves nfe.pdf --out-dir figures
  node-report outputs --watch
A group (model, solver) is named by its YAML file; in runs that did not record it, by its class (OdeNet).
Unfinished, failed and damaged runs are not in the table but listed below it."""


class Plot(NamedTuple):
    """A figure that was asked for, and the ending of its file."""

    name: str
    ending: str


class Parser(ArgumentParser):
    """A parser that raises ConfigError instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse(arguments: list[str]) -> Namespace:
    """What was asked for. Raises ConfigError if an option is unknown or has a value that is not allowed."""
    parser = Parser(
        PROGRAM,
        description="Tables and figures over the runs below some folders.",
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    several = {"nargs": "+", "action": "extend", "default": []}
    add: Callable = parser.add_argument
    add("folders", nargs="*", type=Path, default=[Path("outputs")], metavar="FOLDER", help="default: outputs")
    add("--where", **several, metavar="KEY=VALUE", help="only these runs; also != < <= > >=")
    add("--by", **several, metavar="KEY", help="a row for each value; default: all that differs but seeds and folders")
    add("--show", **several, metavar="COLUMN", help="metrics and more: test/loss, parameters, seconds.training, ...")
    add("--sort", metavar="COLUMN", help="a key, a column or runs; -COLUMN: the largest first")
    add("--format", choices=list(FORMATS), help="default: by the ending of --out, else terminal")
    add("--out", type=Path, metavar="FILE", help=f"write the table there instead of printing it: {' '.join(TABLES)}")
    add("--plot", **several, type=_plot, metavar="PLOT", help=f"{' '.join(PLOTS)}; with .pdf or .svg, else PNG")
    add("--out-dir", type=Path, metavar="FOLDER", help="where figures go; default: the first folder")
    add("--watch", nargs="?", const=2.0, type=float, metavar="SECONDS", help="look again every SECONDS, 2 by default")
    add("--version", action="version", version=f"{PROGRAM} {__version__}")
    args = parser.parse_args(_sort_in_one_argument(arguments))
    if args.watch is not None and not args.watch > 0:
        raise ConfigError(f"--watch must be a positive number of seconds, got {args.watch:g}")
    args.format = _format(args.format, args.out)
    return args


def _plot(typed: str) -> Plot:
    name, _, ending = typed.partition(".")
    plot = Plot(name, ending or ENDINGS[0])
    if name not in PLOTS or plot.ending not in ENDINGS:
        plots = ", ".join(PLOTS)
        raise ArgumentTypeError(
            f"got {typed!r}, must be one of {plots}; with .{' or .'.join(ENDINGS[1:])} for another file"
        )
    return plot


def _format(asked: str | None, out: Path | None) -> str:
    """The format that was asked for, else that of the file's ending."""
    if out is None or not out.suffix:
        return asked or "terminal"
    by_ending = TABLES.get(out.suffix.lower())
    if by_ending is None:
        figure = ": figures are --plot nfe.pdf" if out.suffix[1:] in ENDINGS else ""
        raise ConfigError(f"--out {out}: a table ends in {', '.join(TABLES)}{figure}")
    if asked not in (None, by_ending):
        raise ConfigError(f"--out {out}: this ending means --format {by_ending}, not {asked}")
    return by_ending


def _sort_in_one_argument(arguments: Sequence[str]) -> list[str]:
    """`--sort -test/error` as `--sort=-test/error`: argparse takes what begins with a dash for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--sort":
            joined[-1] = f"--sort={argument}"
        else:
            joined.append(argument)
    return joined
