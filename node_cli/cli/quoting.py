"""Words for Hydra's command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import OverrideParseException

WORDS = ("null", "true", "false", "nan", "inf", "auto")  # which Hydra, or a key, takes for something else
PLAIN = re.compile(r"[A-Za-z0-9_./-]*[A-Za-z./-][A-Za-z0-9_./-]*")


def key_of(word: str) -> str:
    """The key that an override sets."""
    return word.partition("=")[0].lstrip("+~")


def quoted(text: str) -> str:
    """As a value of an override, whatever is in it."""
    return QuotedString(text, Quote.single).with_quotes()


def plain_or_quoted(text: str) -> str:
    """The same, as it stands where that is read alike."""
    return text if PLAIN.fullmatch(text) and text.lower() not in WORDS else quoted(text)


def override(key: str, value: Any) -> str:
    """What sets a key to a plain value, or to a list of such."""
    return f"{key}={_written(value)}"


def value_of(override: str) -> str:
    """The text that an override gives its key, without the quotes that it may stand in."""
    typed = override.partition("=")[2]
    try:
        value = OverridesParser.create().parse_override(f"key={typed}").value()
    except OverrideParseException:
        return typed  # told where the whole line is read
    text = getattr(value, "text", value)
    return text if isinstance(text, str) else typed


def going_on(word: str, overrides: Sequence[str], config_dir: str | None, *, is_sweep: bool = False) -> str:
    """The command of a shell that goes on with `word`: with what only a command line may name."""
    packages = [each for each in overrides if key_of(each) == "packages"]
    options = ["-m"] if is_sweep else []
    if config_dir is not None:
        options += ["--config-dir", config_dir]
    return shlex.join(["node-train", *options, *packages, word])


def _written(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
