"""YAML that a stranger may have written, looked at before anything is made of it: an alias can stand for terabytes."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from node_cli.config import ConfigError
from node_cli.files import read_text

MAX_DEPTH = 30
MAX_NODES = 10_000  # of a config with all its aliases written out; ours have some 150
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, inside: Path | None = None) -> Any:
    """What a file of whole and plain YAML holds; of `inside`, see `files.read_bytes`.

    Raises:
        ConfigError: it cannot be read, is no YAML, has tags that stand for objects, or is larger than a config can be.
    """
    text = read_checked(path, inside)
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path} is damaged{_line_of(error)}: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def read_checked(path: Path, inside: Path | None = None) -> str:
    """The text of a file that unfolds to no more than a config can be; whether it is YAML, who loads it says."""
    try:
        text = read_text(path, inside=inside)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from error
    with suppress(yaml.YAMLError):  # up to there it was small
        _check_events(path, yaml.parse(text, Loader=Loader))
    return text


def _check_events(path: Path, events: Iterable[Any]) -> None:
    """Counts the nodes with every alias written out, without writing any out."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    for event in events:
        size = 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > MAX_DEPTH:
                raise ConfigError(f"{path}{_line_of(event)}: nested more than {MAX_DEPTH} deep")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            sizes |= {anchor: size} if anchor else {}
        elif isinstance(event, yaml.AliasEvent):
            size = sizes.get(str(event.anchor), MAX_NODES)  # one within itself has no end
        elif isinstance(event, yaml.ScalarEvent):
            sizes |= {event.anchor: 1} if event.anchor else {}
        else:
            continue
        anchor, total = open_nodes.pop()
        open_nodes.append((anchor, total + size))
        if total + size > MAX_NODES:
            raise ConfigError(f"{path}{_line_of(event)}: more than {MAX_NODES} values with every alias written out")


def _line_of(place: Any) -> str:
    """Where an event or a parser's error is, if it knows."""
    mark = getattr(place, "problem_mark", None) or getattr(place, "start_mark", None)
    return f", line {mark.line + 1}" if mark else ""
