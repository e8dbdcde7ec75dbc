"""One table in four formats, and the lines under it.

Its words come from run folders, which anybody may have made: each format escapes what is more than text in it.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from node_cli.config import printable
from node_cli.runs.report.filters import number, text
from node_cli.runs.report.grouping import Group, Statistic
from node_cli.tables import VERY_LARGE, VERY_SMALL, aligned, four_digits, power_of_ten

NOTHING = "-"
ROUNDING = 1e-12  # a std below this share of the mean is none
MAX_CELL = 200  # characters of one cell
FORMULA = re.compile(r"[=+@＝＋－＠-]")  # what a spreadsheet takes for one, by how it begins
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
    """A row for each group: its keys, the number of its runs, and of seeds where some have fewer, its figures."""

    keys: Sequence[str]
    columns: Sequence[str]
    groups: Sequence[Group]

    @property
    def header(self) -> list[str]:
        """The names of the columns."""
        return [*self.keys, *self.counts, *self.columns]

    @property
    def counts(self) -> dict[str, Callable[[Group], int]]:
        """What is counted of each group, by the name of the column."""
        counts: dict[str, Callable[[Group], int]] = {"runs": lambda group: len(group.runs)}
        if any(group.repeats_seeds for group in self.groups):
            counts["seeds"] = lambda group: group.num_seeds
        return counts

    def rows(self, number: Callable[[Statistic], str], word: Callable[[str], str]) -> list[list[str]]:
        """Every cell as text, figures by `number` and all else by `word`."""

        def shown(cell: Statistic | str | None) -> str:
            return number(cell) if isinstance(cell, Statistic) else word(NOTHING if cell is None else cell)

        return [
            [
                *(shown(group.key_text(key)) for key in self.keys),
                *(str(count(group)) for count in self.counts.values()),
                *(shown(group.cell(column)) for column in self.columns),
            ]
            for group in self.groups
        ]


def terminal(table: RunTable, notes: Sequence[str]) -> str:
    """Columns in line, keys to the left and figures to the right."""
    rows = [list(map(_bounded, table.header)), *table.rows(plain, _bounded)]
    lines = aligned(rows, "<" * len(table.keys) + ">" * (len(table.header) - len(table.keys)))
    above = [*lines, *([""] if notes else [])] if table.groups else []
    return "\n".join([*above, *map(printable, notes)]) + "\n"


def _bounded(cell: str) -> str:
    """A cell of one line, of a length that a table has room for."""
    line = printable(cell)
    return line if len(line) <= MAX_CELL else f"{line[:MAX_CELL]}... ({len(line)} characters)"


def markdown(table: RunTable, notes: Sequence[str]) -> str:
    """A table as GitHub shows it, the notes as a list."""
    rule = ["---"] * len(table.keys) + ["---:"] * (len(table.header) - len(table.keys))
    rows = [list(map(_as_markdown, table.header)), rule, *table.rows(plain, _as_markdown)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {_as_markdown(note)}" for note in notes)]).rstrip() + "\n"


def _as_markdown(cell: str) -> str:
    return MARKDOWN.sub(lambda sign: f"\\{sign[0]}", printable(cell))


def comma_separated(table: RunTable, notes: Sequence[str]) -> str:
    """All digits, mean and std apart, nothing where there is nothing; the notes have no place in it."""
    figures = {name for name in table.columns if any(isinstance(group.cell(name), Statistic) for group in table.groups)}
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    names = [[f"{name} mean", f"{name} std"] if name in figures else [name] for name in table.columns]
    writer.writerow(map(_as_text, [*table.keys, *table.counts, *chain(*names)]))
    for group in table.groups:
        keys = [_as_text(group.full_text(key) or "") for key in table.keys]
        cells = [_apart(group.cell(name), name in figures) for name in table.columns]
        writer.writerow([*keys, *(count(group) for count in table.counts.values()), *chain(*cells)])
    return content.getvalue()


def _apart(cell: Statistic | str | None, is_figure: bool) -> list[str]:
    if not isinstance(cell, Statistic):
        return [_as_text(cell or ""), ""] if is_figure else [_as_text(cell or "")]
    return [text(cell.mean), "" if cell.std is None else text(cell.std)]


def _as_text(cell: str) -> str:
    """What begins as a formula does, and is no number, with the apostrophe that makes it text in a spreadsheet."""
    return f"'{printable(cell)}" if FORMULA.match(cell) and number(cell) is None else printable(cell)


def latex(table: RunTable, notes: Sequence[str]) -> str:
    """A tabular that needs no package; the notes as comments."""
    shape = "l" * len(table.keys) + "r" * (len(table.header) - len(table.keys))
    header = " & ".join(map(_escaped, table.header))
    rows = map(" & ".join, table.rows(_in_math, _escaped))
    lines = [rf"\begin{{tabular}}{{{shape}}}", r"\hline", rf"{header} \\", r"\hline"]
    lines += [rf"{row} \\" for row in rows] + [r"\hline", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {printable(note)}" for note in notes)]) + "\n"


def _escaped(cell: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in printable(cell))


def _in_math(figure: Statistic) -> str:
    digits = plain(figure).replace("±", r"\pm")
    digits = re.sub(r"e([+-]\d+)", _as_power, digits)
    return f"${digits}$"


def _as_power(exponent: re.Match[str]) -> str:
    return rf" \times 10^{{{int(exponent[1])}}}"


def plain(figure: Statistic) -> str:
    """`0.0412 ± 0.0023`: two digits of the std, the mean to the same place; four digits of a single run."""
    if figure.exact or not math.isfinite(figure.mean):
        return f"{figure.mean:.0f}"
    if figure.std is None:
        return four_digits(figure.mean)
    if not math.isfinite(figure.std):
        return f"{four_digits(figure.mean)} ± {figure.std:.0f}"
    if figure.std <= ROUNDING * abs(figure.mean):
        return f"{four_digits(figure.mean)} ± 0"
    power = power_of_ten(max(abs(figure.mean), figure.std))
    shift = power if power in VERY_SMALL or power in VERY_LARGE else 0
    mean, std = figure.mean / 10.0**shift, figure.std / 10.0**shift
    places = max(0, 1 - power_of_ten(std))
    both = f"{mean:.{places}f} ± {std:.{places}f}"
    return f"({both})e{shift:+03d}" if shift else both


FORMATS: dict[str, Callable[[RunTable, Sequence[str]], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
}
