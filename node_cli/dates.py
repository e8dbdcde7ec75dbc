"""Dates of users as days since 1970-01-01, and back."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import numpy as np

# Calendars of times: numbers, days of dates, and days in UTC of dates that had a time zone.
NONE, DAYS, DAYS_UTC = "", "days", "days in UTC"
KINDS = {NONE: "numbers", DAYS: "dates", DAYS_UTC: "dates with a time zone"}
SECONDS_A_DAY = 86_400
DATE = re.compile(r"(\d{4}-\d{2})(-\d{2})?(?:[T ](\d{2}:\d{2})(:\d{2})?(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def days_of(text: str) -> tuple[float, str]:
    """Days since 1970-01-01 of a date such as 2024-05, 2024-05-31 or 2024-05-31T13:30+02:00, and their calendar.

    Raises:
        ValueError: it is no date.
    """
    match = DATE.fullmatch(text)
    if match is None:
        raise ValueError("not a date")
    month, day, minute, second, fraction, zone = match.groups(default="")
    full = f"{month}{day or '-01'}T{minute or '00:00'}{second or ':00'}{fraction.ljust(7, '0') if fraction else ''}"
    moment = datetime.fromisoformat(full + ("+00:00" if zone in ("", "Z") else zone))
    return (moment - EPOCH) / timedelta(days=1), DAYS_UTC if zone else DAYS


def dates_of(days: np.ndarray, calendar: str) -> np.ndarray:
    """Texts `(count,)` of days: dates alone where all are whole and have no time zone; seconds are rounded."""
    seconds = np.round(days * SECONDS_A_DAY).astype("datetime64[s]")
    if calendar == DAYS_UTC:
        return np.char.add(seconds.astype(str), "Z")
    is_whole = bool((days == np.round(days)).all())
    return seconds.astype("datetime64[D]" if is_whole else "datetime64[s]").astype(str)
