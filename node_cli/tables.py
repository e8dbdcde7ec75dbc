"""Tables as lines of text, and numbers as they stand in them."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GAP = "  "  # between columns
VERY_SMALL, VERY_LARGE = range(-400, -3), range(7, 400)  # powers of ten that are written out


def aligned(rows: Sequence[Sequence[str]], signs: str = "") -> list[str]:
    """A line for each row of equally many cells; `signs`, one a column, put cells to the left (<) or the right (>)."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    signs = signs or "<" * len(widths)
    return [GAP.join(f"{c:{s}{w}}" for c, s, w in zip(row, signs, widths, strict=True)).rstrip() for row in rows]


def wrapped(rows: Sequence[Sequence[str]], signs: str, num_keys: int, width: int) -> list[str]:
    """As `aligned`, in several tables below each other where that would be wider than `width`.

    Each of them begins with the `num_keys` first columns, or, where these take more than half of the width, with the
    numbers of the rows.
    """
    sizes = [max(map(len, column)) + len(GAP) for column in zip(*rows, strict=True)]
    if sum(sizes) - len(GAP) <= width:
        return aligned(rows, signs)
    if sum(sizes[:num_keys]) > width / 2:
        rows = [[f"{number}" if number else "", *row] for number, row in enumerate(rows)]
        sizes, signs, num_keys = [len(f"{len(rows)}") + len(GAP), *sizes], f"<{signs}", 1
    repeated = list(range(num_keys))
    blocks: list[list[int]] = [[]]
    for column in range(num_keys, len(sizes)):
        if blocks[-1] and sum(sizes[each] for each in [*repeated, *blocks[-1], column]) - len(GAP) > width:
            blocks.append([])
        blocks[-1].append(column)
    lines: list[str] = []
    for block in blocks:
        chosen = [*repeated, *block]
        lines += ["", *aligned([[row[each] for each in chosen] for row in rows], "".join(signs[c] for c in chosen))]
    return lines[1:]


@dataclass(frozen=True)
class Table:
    """A title and rows of equal keys, which are the names of the columns."""

    title: str
    rows: Sequence[Mapping[str, str]]

    def lines(self) -> list[str]:
        """The title, the names of the columns, a line for each row."""
        return [self.title, *with_names(self.rows)]


def with_names(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """A line of the names of the columns, which are the keys of the first row, and a line for each row."""
    return aligned([list(rows[0]), *([row[name] for name in rows[0]] for row in rows)])


def four_digits(value: float) -> str:
    """A number by itself: `0.9750`, `4618`, `1.500e-07`."""
    if not math.isfinite(value):
        return f"{value:.0f}"
    if value == 0:
        return "0"
    power = power_of_ten(value)
    return f"{value:.3e}" if power in VERY_SMALL or power in VERY_LARGE else f"{value:.{max(0, 3 - power)}f}"


def two_digits(value: float) -> str:
    """An error or a gradient beside others, of whatever size: `2.6e-16`."""
    return f"{value:.1e}"


def percent(value: float) -> str:
    """A relative error, always in percent: about two digits, however small."""
    return f"{100 * value:.0f} %" if value >= 1 else f"{100 * value:.2g} %"


def power_of_ten(value: float) -> int:
    """That of the first digit; of numbers too small to be normal ones, that of the smallest normal one."""
    return math.floor(math.log10(max(abs(value), sys.float_info.min))) if value else 0
