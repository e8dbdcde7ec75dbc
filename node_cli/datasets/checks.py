"""Range checks of config keys that several datasets share."""

from __future__ import annotations


def check_at_least(key: str, value: float, minimum: float) -> None:
    """Raise ValueError naming `dataset.<key>` if `value` is below `minimum` or not a number."""
    if not value >= minimum:
        raise ValueError(f"dataset.{key}: got {value}, must be at least {minimum}")
