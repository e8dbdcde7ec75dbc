"""A table of runs, the notes below it, and four formats of both.

Its text comes from run folders, which anybody may have made: each format escapes what is special in it.
"""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from node_cli.config import printable
from node_cli.runs.outcome import DAMAGED, FAILED, FINISHED, PRUNED, UNFINISHED
from node_cli.runs.report.filters import number, text
from node_cli.runs.report.grouping import Group, Statistic
from node_cli.runs.report.reading import RunRecord, progress
from node_cli.tables import VERY_LARGE, VERY_SMALL, four_digits, power_of_ten, wrapped

NOTHING = "-"
ROUNDING = 1e-12  # a std below this share of the mean is shown as 0
WIDEST = 1 << 20  # characters of a line in a file or pipe
MAX_CELL = 200  # characters
MAX_LISTED = 10  # runs of one status
WITHOUT_A_ROW = (UNFINISHED, PRUNED, FAILED, DAMAGED)
FORMULA = re.compile(r"[=+@＝＋－＠-]")  # how a formula begins in a spreadsheet
MARKDOWN = re.compile(r"[\\`*\[\]<>&|~$!]|(?<![^\W_])_|_(?![^\W_])")  # `_` within a word is text
LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"{{{sign}}}" for sign in "[]*"},  # which belong to a line break before them
}


@dataclass(frozen=True)
class RunTable:
    """A row for each group: its keys, the number of its runs (and of seeds, where runs share some), its values.

    A `title` says what tells it from other tables.
    """

    keys: Sequence[str]
    columns: Sequence[str]
    groups: Sequence[Group]
    title: str = ""

    @property
    def counts(self) -> dict[str, Callable[[Group], int]]:
        """The columns of counts, by their names."""
        counts: dict[str, Callable[[Group], int]] = {"runs": lambda group: len(group.runs)}
        if any(group.repeats_seeds for group in self.groups):
            counts["seeds"] = lambda group: group.num_seeds
        return counts

    def rows(self, number: Callable[[Statistic], str], escape: Callable[[str], str]) -> list[list[str]]:
        """The names of the columns, then every cell as text: statistics by `number`, all else by `escape`."""

        def shown(cell: Statistic | str | None) -> str:
            return number(cell) if isinstance(cell, Statistic) else escape(NOTHING if cell is None else cell)

        rows = [
            [
                *(shown(group.key_text(key)) for key in self.keys),
                *(str(count(group)) for count in self.counts.values()),
                *(shown(group.cell(column)) for column in self.columns),
            ]
            for group in self.groups
        ]
        return [list(map(escape, [*self.keys, *self.counts, *self.columns])), *rows]

    def sides(self, left: str, right: str) -> list[str]:
        """A sign for each column: keys stand to the left, numbers to the right."""
        return [left] * len(self.keys) + [right] * (len(self.counts) + len(self.columns))


def notes_on(tables: Sequence[RunTable], selected: Sequence[RunRecord], num_all: int) -> list[str]:
    """Rows with few seeds or missing values; how many runs of each status there are; why some have no row."""
    lines = [
        f"{group.label()}: {len(group.runs)} runs, {group.num_seeds} seed{'s' if group.num_seeds > 1 else ''}: "
        "runs of one seed say nothing about the std over seeds"
        for table in tables
        for group in table.groups
        if group.repeats_seeds
    ]
    lines += [
        f"{group.label()}: only {group.num_with(column)} of {len(group.runs)} runs have {column}"
        for table in tables
        for group in table.groups
        for column in table.columns
        if 0 < group.num_with(column) < len(group.runs)
    ]
    count, left_out = Counter(run.status for run in selected), num_all - len(selected)
    parts = [f"{count[status]} {status}" for status in (FINISHED, *WITHOUT_A_ROW) if count[status]]
    parts += [f"{left_out} left out by --where"] if left_out else []
    lines.append(f"{num_all} run{'s' if num_all > 1 else ''}: {', '.join(parts)}")
    for status in WITHOUT_A_ROW:
        same, first = [run for run in selected if run.status == status], dict[str, Path]()
        for run in same[:MAX_LISTED]:
            reason = " ".join((progress(run) if status == UNFINISHED else run.reason).split())
            lines.append(f"{status}: {run.folder}: " + (f"the same as {first[reason]}" if reason in first else reason))
            first.setdefault(reason, run.folder)
        lines += [f"{status}: and {len(same) - MAX_LISTED} more"] if len(same) > MAX_LISTED else []
    return lines


def terminal(table: RunTable, notes: Sequence[str]) -> str:
    """Aligned columns, keys to the left and numbers to the right; in several parts if it is wider than a terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDEST
    lines = wrapped(table.rows(plain, _bounded), "".join(table.sides("<", ">")), len(table.keys), width)
    lines = [*([_bounded(table.title)] if table.title else []), *lines]
    above = [*lines, *([""] if notes else [])] if table.groups else []
    return "\n".join([*above, *map(printable, notes)]) + "\n"


def _bounded(cell: str) -> str:
    """A cell in one line, cut where it is too long for a table."""
    line = printable(cell)
    return line if len(line) <= MAX_CELL else f"{line[:MAX_CELL]}... ({len(line)} characters)"


def markdown(table: RunTable, notes: Sequence[str]) -> str:
    """A table in GitHub's Markdown, the notes as a list."""
    header, *rows = table.rows(plain, _as_markdown)
    lines = [f"| {' | '.join(row)} |" for row in [header, table.sides("---", "---:"), *rows]]
    lines = [*([_as_markdown(table.title), ""] if table.title else []), *lines]
    return "\n".join([*lines, "", *(f"- {_as_markdown(note)}" for note in notes)]).rstrip() + "\n"


def _as_markdown(cell: str) -> str:
    return MARKDOWN.sub(lambda sign: f"\\{sign[0]}", printable(cell))


def comma_separated(table: RunTable, notes: Sequence[str]) -> str:
    """All digits, mean and std in columns of their own, empty cells for missing values; without the notes."""
    numeric = {name for name in table.columns if any(isinstance(group.cell(name), Statistic) for group in table.groups)}
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    names = [[f"{name} mean", f"{name} std"] if name in numeric else [name] for name in table.columns]
    writer.writerow(map(_as_text, [*table.keys, *table.counts, *chain(*names)]))
    for group in table.groups:
        keys = [_as_text(group.full_text(key) or "") for key in table.keys]
        cells: list[str] = []
        for name in table.columns:
            cell = group.cell(name)
            if isinstance(cell, Statistic):
                cells += [text(cell.mean), "" if cell.std is None else text(cell.std)]
            else:
                cells += [_as_text(cell or ""), *([""] if name in numeric else [])]
        writer.writerow([*keys, *(count(group) for count in table.counts.values()), *cells])
    return content.getvalue()


def _as_text(cell: str) -> str:
    """Puts an apostrophe before what a spreadsheet would take for a formula; numbers may begin with a sign."""
    return f"'{printable(cell)}" if FORMULA.match(cell) and number(cell) is None else printable(cell)


def latex(table: RunTable, notes: Sequence[str]) -> str:
    """A tabular that needs no LaTeX package; the notes as comments."""
    header, *rows = [rf"{' & '.join(row)} \\" for row in table.rows(_in_math, _escaped)]
    lines = [rf"\begin{{tabular}}{{{''.join(table.sides('l', 'r'))}}}", r"\hline", header, r"\hline"]
    lines += [*rows, r"\hline", r"\end{tabular}"]
    lines = [*([f"% {printable(table.title)}"] if table.title else []), *lines]
    return "\n".join([*lines, *(f"% {printable(note)}" for note in notes)]) + "\n"


def _escaped(cell: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in printable(cell))


def _in_math(value: Statistic) -> str:
    digits = plain(value).replace("±", r"\pm")
    digits = re.sub(r"e([+-]\d+)", lambda power: rf" \times 10^{{{int(power[1])}}}", digits)
    return f"${digits}$"


def plain(value: Statistic) -> str:
    """`0.0412 ± 0.0023`: two digits of the std, the mean to the same place; four digits for a single run."""
    if value.exact or not math.isfinite(value.mean):
        return f"{value.mean:.0f}"
    if value.std is None:
        return four_digits(value.mean)
    if not math.isfinite(value.std):
        return f"{four_digits(value.mean)} ± {value.std:.0f}"
    if value.std <= ROUNDING * abs(value.mean):
        return f"{four_digits(value.mean)} ± 0"
    power = power_of_ten(max(abs(value.mean), value.std))
    shift = power if power in VERY_SMALL or power in VERY_LARGE else 0
    mean, std = value.mean / 10.0**shift, value.std / 10.0**shift
    places = max(0, 1 - power_of_ten(std))
    both = f"{mean:.{places}f} ± {std:.{places}f}"
    return f"({both})e{shift:+03d}" if shift else both


FORMATS: dict[str, Callable[[RunTable, Sequence[str]], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
}
