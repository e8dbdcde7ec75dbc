"""`node-report`: from many runs to one table. Needs neither torch nor Hydra's configs."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

from node_cli.cli.errors import INTERRUPTED, one_line_errors
from node_cli.config import ConfigError, printable
from node_cli.runs.outcome import FINISHED, UNFINISHED
from node_cli.runs.report.filters import ALIASES, check_key, parse_condition, select
from node_cli.runs.report.formats import FORMATS, RunTable, notes_on
from node_cli.runs.report.grouping import (
    default_columns,
    differing_keys,
    group_runs,
    horizon_columns,
    parts_of,
    sort_groups,
)
from node_cli.runs.report.options import PROGRAM, parse
from node_cli.runs.report.reading import RunRecord, read_runs, written_at
from node_cli.runs.report.writing import make_folder, write


def main() -> None:
    """The entry point."""
    with one_line_errors(PROGRAM):
        args = parse(sys.argv[1:])
        _watch(args) if args.watch is not None else _report(args)


def _report(args: Namespace) -> list[RunRecord]:
    """Prints or writes the table and draws the figures; the runs that were asked for."""
    runs = read_runs(args.folders)
    selected = select(runs, [parse_condition(typed) for typed in args.where])
    table = _table(args, [run for run in selected if run.status == FINISHED])
    tables = _by_task(args, table)
    below = notes_on(tables, selected, len(runs))
    content = _formatted(args, tables, below)
    if args.out is not None:
        write(args.out, content.encode())
    if args.plot and (table.groups or args.watch is None):  # who watches waits for the first to finish
        _plot(args, table)
    _print(content if args.out is None else printable(f"{args.out}") + "\n")
    if args.format == "csv":
        sys.stderr.write("".join(f"{printable(line)}\n" for line in below))
    return selected


def _by_task(args: Namespace, table: RunTable) -> list[RunTable]:
    """The table, or, if nothing else was asked for, one for each task, and dataset where these have other metrics."""
    runs = [run for group in table.groups for run in group.runs]
    if args.by or args.show or args.format == "csv":
        return [table]
    parts = parts_of(runs)
    if len(parts) < 2:
        return [table]
    return [replace(_table(args, part, is_part=True), title=title) for title, part in sorted(parts.items())]


def _formatted(args: Namespace, tables: Sequence[RunTable], below: Sequence[str]) -> str:
    """The tables, and below each the errors by horizon where the runs have some and no columns were asked for."""
    write_table = FORMATS[args.format]
    shown: list[RunTable] = []
    for table in tables:
        further = [] if args.show else horizon_columns([run for group in table.groups for run in group.runs])
        if args.format == "csv":
            shown.append(RunTable(table.keys, [*table.columns, *further], table.groups))
        else:
            shown += [table, *([RunTable(table.keys, further, table.groups)] if further else [])]
    return "\n".join([*(write_table(table, []) for table in shown[:-1]), write_table(shown[-1], below)])


def _print(content: str) -> None:
    """Writes it to a terminal or pipe of any encoding: what that does not have is written as Python does."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        content.encode(encoding)
    except UnicodeEncodeError:
        content = content.replace("±", "+-").encode(encoding, "backslashreplace").decode(encoding)
    sys.stdout.write(content)


def _table(args: Namespace, runs: Sequence[RunRecord], *, is_part: bool = False) -> RunTable:
    """Of all runs, or of a part, which need not have what the others are sorted by."""
    if not runs:
        return RunTable([], [], [])
    columns = list(dict.fromkeys(ALIASES.get(name, name) for name in args.show)) or default_columns(runs)
    keys = list(dict.fromkeys(args.by)) or [key for key in differing_keys(runs) if key not in columns]
    for option, names in (("--by", keys), ("--show", columns)):
        for name in names:
            check_key(option, name, runs)
    groups = group_runs(runs, keys)
    if args.sort is not None:
        column = ALIASES.get(args.sort.lstrip("-"), args.sort.lstrip("-"))
        if column != "runs" and not is_part:
            check_key("--sort", column, runs)
        groups = sort_groups(groups, column, descending=args.sort.startswith("-"))
    return RunTable(keys, columns, groups)


def _plot(args: Namespace, table: RunTable) -> None:
    from node_cli.figures import file_of
    from node_cli.runs.report.plots import draw

    if not table.groups:
        raise ConfigError("--plot: no run has finished")
    columns = [*table.columns, *default_columns([run for group in table.groups for run in group.runs])]
    folder = args.out_dir or args.folders[0]
    figures = {plot: draw(plot.name, table.groups, columns) for plot in dict.fromkeys(args.plot)}
    make_folder(folder)
    for plot, figure in figures.items():
        path = folder / f"report_{plot.name}.{plot.ending}"
        write(path, file_of(figure, plot.ending))
        sys.stderr.write(f"{path}\n")


def _watch(args: Namespace) -> None:
    """The report again whenever something was written, until no run is unfinished or Ctrl-C."""
    seen = None
    try:
        while True:
            now = written_at(args.folders)
            if now != seen:
                sys.stdout.write("\033[2J\033[H" if sys.stdout.isatty() else "" if seen is None else "\n")
                sys.stdout.write(f"{time.strftime('%H:%M:%S')}\n")
                unfinished = any(run.status == UNFINISHED for run in _report(args))
                sys.stdout.flush()
                if not unfinished:
                    return
            seen = now
            time.sleep(args.watch)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
