"""What a cell of a table says: a number, nothing, or a time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from node_cli.dates import DATE, DAYS, DAYS_UTC, NONE, days_of

MISSING = ("", "na", "n/a", "nan", "null", "none")  # in any case
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
LIKE_A_DATE = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", re.ASCII)
LARGEST_TIME = 2**53  # up to here a float64 holds every whole number
MAX_SHOWN = 40
LONGEST_NAME = 100  # characters


def number_in(cell: str) -> float:
    """The number in a cell, NaN where it is missing.

    Raises:
        ValueError: it is something else.
    """
    if cell.casefold() in MISSING:
        return math.nan
    if not NUMBER.fullmatch(cell):
        raise ValueError(f"{shown(cell)} is not a number{_hint(cell)}")
    number = float(cell)
    if math.isinf(number):
        raise ValueError(f"{shown(cell)} is too large")
    return number


def reader_of_times(cells: Sequence[str]) -> tuple[Callable[[str], float], str]:
    """What reads the times of a column, and their calendar.

    The first cell says which of the two they are. Dates are read as days since 1970-01-01.
    """
    if NUMBER.fullmatch(cells[0]):
        if all(LIKE_A_DATE.fullmatch(cell) for cell in cells):
            return _refuse_compact_date, NONE
        return _number_of_time, NONE
    first = DATE.fullmatch(cells[0])
    calendar = DAYS_UTC if first and first[6] else DAYS
    return lambda cell: _days(cell, calendar), calendar


def check_name(name: str) -> None:
    """Refuses what tables, figures and messages could not show as the name of a column or of a series.

    Raises:
        ValueError: it is empty, too long, or not printable.
    """
    if not name:
        raise ValueError("the name is missing")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"the name has {len(name):,} characters, at most {LONGEST_NAME} are allowed")
    if not name.isprintable():
        raise ValueError(f"the name {shown(name)} holds what cannot be printed")


def shown(cell: str) -> str:
    """A cell as a message shows it."""
    return repr(cell if len(cell) <= MAX_SHOWN else f"{cell[:MAX_SHOWN]}...")


def _refuse_compact_date(cell: str) -> float:
    raise ValueError(f"{shown(cell)} looks like a date; write it as {cell[:4]}-{cell[4:6]}-{cell[6:]}")


def _hint(cell: str) -> str:
    return "; write a decimal point" if DECIMAL_COMMA.fullmatch(cell) else ""


def _number_of_time(cell: str) -> float:
    number = number_in(cell)
    if math.isnan(number):
        raise ValueError("the time is missing")
    if abs(number) > LARGEST_TIME and cell.lstrip("-+").isdigit() and int(cell) != number:
        raise ValueError(f"{shown(cell)} has too many digits for a time; count from a later start")
    return number


def _days(cell: str, calendar: str) -> float:
    if cell.casefold() in MISSING:
        raise ValueError("the time is missing")
    try:
        days, found = days_of(cell)
    except ValueError as error:
        raise ValueError(
            f"{shown(cell)} is neither a number nor a date such as 2024-05-31 or 2024-05-31T13:30{_hint(cell)}"
        ) from error
    if found != calendar:
        has, others = ("a", "none") if found == DAYS_UTC else ("no", "one")
        raise ValueError(f"{shown(cell)} has {has} time zone, others have {others}")
    return days
