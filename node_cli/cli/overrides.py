"""Words for Hydra's command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from node_cli.config import ConfigError, is_path
from node_cli.runs.folder import RunFolder
from node_cli.runs.moved_data import PLACES

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
    except HydraException:  # which its lexer raises as it stands
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


def with_data_of_run(overrides: Sequence[str]) -> list[str]:
    """`dataset.path=...` beside `run=...` says where the data of the run are now; its dataset is chosen for it.

    Raises:
        ConfigError: more of the dataset is set, there is no such run, or its dataset was not recorded by name.
    """
    typed = dict(word.partition("=")[::2] for word in overrides)
    value = typed.get("run", "").strip("'\"")
    of_data = [key for key in typed if key == "dataset" or key.startswith("dataset.")]
    if not of_data or not is_path(value) or value == "null":
        return list(overrides)
    others = [key for key in of_data if key not in PLACES]
    if others:
        raise ConfigError(
            f"{', '.join(others)} has no effect with run=..., which brings its own: of its dataset only "
            f"{' and '.join(PLACES)} can be set, where its data were moved"
        )
    folder = RunFolder.of(value)
    name = folder.read_choices().get("dataset")
    if not (isinstance(name, str) and name.isidentifier()):
        raise ConfigError(f"the dataset of {folder.path} was not recorded by name: {of_data[0]} cannot be set")
    return [f"dataset={name}", *overrides]
