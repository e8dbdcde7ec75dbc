"""What a cell of a table says: a number, nothing, or a time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

MISSING = ("", "na", "n/a", "nan", "null", "none")  # in any case
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
LIKE_A_DATE = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", re.ASCII)
DATE = re.compile(r"(\d{4}-\d{2})(-\d{2})?(?:[T ](\d{2}:\d{2})(:\d{2})?(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
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
        hint = "; write a decimal point" if DECIMAL_COMMA.fullmatch(cell) else ""
        raise ValueError(f"{shown(cell)} is not a number{hint}")
    number = float(cell)
    if math.isinf(number):
        raise ValueError(f"{shown(cell)} is too large")
    return number


def reader_of_times(cells: Sequence[str]) -> tuple[Callable[[str], float], str]:
    """What reads the times of a column, and their calendar: "" of numbers, "days" of dates.

    The first cell says which of the two they are. Dates are read as days since 1970-01-01.
    """
    if NUMBER.fullmatch(cells[0]):
        if all(LIKE_A_DATE.fullmatch(cell) for cell in cells):
            return _refuse_compact_date, ""
        return _number_of_time, ""
    has_zone = cells[0].endswith("Z") or bool(re.search(r"[+-]\d{2}:\d{2}$", cells[0]))
    return lambda cell: _days(cell, has_zone), "days"


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


def _number_of_time(cell: str) -> float:
    number = number_in(cell)
    if math.isnan(number):
        raise ValueError("the time is missing")
    return number


def _days(cell: str, has_zone: bool) -> float:
    if cell.casefold() in MISSING:
        raise ValueError("the time is missing")
    match = DATE.fullmatch(cell)
    try:
        if match is None:
            raise ValueError
        month, day, minute, second, fraction, zone = match.groups(default="")
        text = f"{month}{day or '-01'}T{minute or '00:00'}{second or ':00'}{fraction.ljust(7, '0') if fraction else ''}"
        moment = datetime.fromisoformat(text + ("+00:00" if zone in ("", "Z") else zone))
    except ValueError as error:
        raise ValueError(
            f"{shown(cell)} is neither a number nor a date such as 2024-05-31 or 2024-05-31T13:30"
        ) from error
    if bool(zone) != has_zone:
        raise ValueError(
            f"{shown(cell)} has {'a' if zone else 'no'} time zone, others have {'one' if has_zone else 'none'}"
        )
    return (moment - EPOCH) / timedelta(days=1)
