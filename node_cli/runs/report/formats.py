"""One table in four formats, and the lines under it.

Its words come from run folders, which anybody may have made: each format escapes what is more than text in it.
"""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from node_cli.config import printable
from node_cli.runs.report.filters import number, text
from node_cli.runs.report.grouping import Figure, Group

NOTHING = "-"
ROUNDING = 1e-12  # a deviation below this share of the mean is none
MAX_CELL = 200  # characters of one cell
FORMULA = re.compile(r"[=+@＝＋－＠-]")  # what a spreadsheet takes for one, by how it begins
MARKDOWN = re.compile(r"[\\`*\[\]<>&|~$!]|(?<![^\W_])_|_(?![^\W_])")  # `_` within a word is text
VERY_SMALL, VERY_LARGE = range(-400, -3), range(7, 400)  # powers of ten that are written out
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
class Table:
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

    def rows(self, number: Callable[[Figure], str], word: Callable[[str], str]) -> list[list[str]]:
        """Every cell as text, figures by `number` and all else by `word`."""

        def shown(cell: Figure | str | None) -> str:
            return number(cell) if isinstance(cell, Figure) else word(NOTHING if cell is None else cell)

        return [
            [
                *(shown(group.key_text(key)) for key in self.keys),
                *(str(count(group)) for count in self.counts.values()),
                *(shown(group.cell(column)) for column in self.columns),
            ]
            for group in self.groups
        ]


def terminal(table: Table, notes: Sequence[str]) -> str:
    """Columns in line, keys to the left and figures to the right."""
    rows = [list(map(_bounded, table.header)), *table.rows(plain, _bounded)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    signs = "<" * len(table.keys) + ">" * (len(table.header) - len(table.keys))
    lines = ["  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, signs, widths, strict=True)).rstrip() for row in rows]
    return (
        "\n".join([*(lines if table.groups else []), *([""] if table.groups and notes else []), *map(printable, notes)])
        + "\n"
    )


def _bounded(cell: str) -> str:
    """A cell of one line, of a length that a table has room for."""
    line = printable(cell)
    return line if len(line) <= MAX_CELL else f"{line[:MAX_CELL]}... ({len(line)} characters)"


def markdown(table: Table, notes: Sequence[str]) -> str:
    """A table as GitHub shows it, the notes as a list."""
    rule = ["---"] * len(table.keys) + ["---:"] * (len(table.header) - len(table.keys))
    rows = [list(map(_as_markdown, table.header)), rule, *table.rows(plain, _as_markdown)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {_as_markdown(note)}" for note in notes)]).rstrip() + "\n"


def _as_markdown(cell: str) -> str:
    return MARKDOWN.sub(lambda sign: f"\\{sign[0]}", printable(cell))


def comma_separated(table: Table, notes: Sequence[str]) -> str:
    """All digits, mean and deviation apart, nothing where there is nothing; the notes have no place in it."""
    figures = {name for name in table.columns if any(isinstance(group.cell(name), Figure) for group in table.groups)}
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    names = [[f"{name} mean", f"{name} deviation"] if name in figures else [name] for name in table.columns]
    writer.writerow(map(_as_text, [*table.keys, *table.counts, *chain(*names)]))
    for group in table.groups:
        keys = [_as_text(group.full_text(key) or "") for key in table.keys]
        cells = [_apart(group.cell(name), name in figures) for name in table.columns]
        writer.writerow([*keys, *(count(group) for count in table.counts.values()), *chain(*cells)])
    return content.getvalue()


def _apart(cell: Figure | str | None, is_figure: bool) -> list[str]:
    if not isinstance(cell, Figure):
        return [_as_text(cell or ""), ""] if is_figure else [_as_text(cell or "")]
    return [text(cell.mean), "" if cell.deviation is None else text(cell.deviation)]


def _as_text(cell: str) -> str:
    """What begins as a formula does, and is no number, with the apostrophe that makes it text in a spreadsheet."""
    return f"'{printable(cell)}" if FORMULA.match(cell) and number(cell) is None else printable(cell)


def latex(table: Table, notes: Sequence[str]) -> str:
    """A tabular that needs no package; the notes as comments."""
    shape = "l" * len(table.keys) + "r" * (len(table.header) - len(table.keys))
    header = " & ".join(map(_escaped, table.header))
    rows = map(" & ".join, table.rows(_in_math, _escaped))
    lines = [rf"\begin{{tabular}}{{{shape}}}", r"\hline", rf"{header} \\", r"\hline"]
    lines += [rf"{row} \\" for row in rows] + [r"\hline", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {printable(note)}" for note in notes)]) + "\n"


def _escaped(cell: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in printable(cell))


def _in_math(figure: Figure) -> str:
    digits = plain(figure).replace("±", r"\pm")
    digits = re.sub(r"e([+-]\d+)", _as_power, digits)
    return f"${digits}$"


def _as_power(exponent: re.Match[str]) -> str:
    return rf" \times 10^{{{int(exponent[1])}}}"


def plain(figure: Figure) -> str:
    """`0.0412 ± 0.0023`: two digits of the deviation, the mean to the same place; four digits of a single run."""
    if figure.exact or not math.isfinite(figure.mean):
        return f"{figure.mean:.0f}"
    if figure.deviation is None:
        return four_digits(figure.mean)
    if not math.isfinite(figure.deviation):
        return f"{four_digits(figure.mean)} ± {figure.deviation:.0f}"
    if figure.deviation <= ROUNDING * abs(figure.mean):
        return f"{four_digits(figure.mean)} ± 0"
    power = _power(max(abs(figure.mean), figure.deviation))
    shift = power if power in VERY_SMALL or power in VERY_LARGE else 0
    mean, deviation = figure.mean / 10.0**shift, figure.deviation / 10.0**shift
    places = max(0, 1 - _power(deviation))
    both = f"{mean:.{places}f} ± {deviation:.{places}f}"
    return f"({both})e{shift:+03d}" if shift else both


def four_digits(value: float) -> str:
    """Of a single run: `0.9750`, `4618`, `1.500e-07`."""
    if not math.isfinite(value):
        return f"{value:.0f}"
    power = _power(value)
    if value == 0:
        return "0"
    return f"{value:.3e}" if power in VERY_SMALL or power in VERY_LARGE else f"{value:.{max(0, 3 - power)}f}"


def _power(value: float) -> int:
    """Of ten, of the first digit; that of the least normal numbers for smaller ones."""
    return math.floor(math.log10(max(abs(value), sys.float_info.min))) if value else 0


FORMATS: dict[str, Callable[[Table, Sequence[str]], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
}
