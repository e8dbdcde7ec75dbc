"""What TensorBoard calls one run of many: what tells it from the others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MAX_NAME = 120  # characters


def name_of(words: Iterable[str]) -> str | None:
    """`key=value` words as one name of a folder; None where there are none."""
    return re.sub(r"[^\w.,=+-]+", "_", ",".join(words).lstrip("+~."), flags=re.ASCII)[:MAX_NAME] or None


def with_run_name(config: dict[str, Any], words: Iterable[str]) -> dict[str, Any]:
    """The config with this name for the loggers that take one and were given none."""
    named = {
        key: {**node, "run_name": name_of(words)} if node.get("run_name", "") is None else node
        for key, node in config["logger"].items()
    }
    return config | {"logger": named}
