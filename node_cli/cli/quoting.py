"""Words for Hydra's command line."""

from __future__ import annotations


def quoted(text: str) -> str:
    """As a value of an override, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
