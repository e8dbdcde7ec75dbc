"""Words for Hydra's command line."""

from __future__ import annotations

from typing import Any


def key_of(word: str) -> str:
    """The key that an override sets."""
    return word.partition("=")[0].lstrip("+~")


def quoted(text: str) -> str:
    """As a value of an override, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def override(key: str, value: Any) -> str:
    """What sets a key to a plain value, or to a list of such."""
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
