"""`${model.width}` in a config: another of its keys, or `${now:...}`, the time. Nothing else.

The environment least of all: what a config says is recorded in files that people share, and sent to the addresses
that it names. References to references can also stand for more than a memory holds, so their size is known before
anything is made of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MAX_SIZE = 1_000_000  # characters and values of a config with all references filled in; ours have some 5,000
PLAIN = re.compile(r"\$\{(?:now:[^${}]*|(\.*[\w-]+(?:\.[\w-]+)*))\}")
INDEX = re.compile(r"-?\d{1,9}")


def problems_of_references(values: Any) -> list[str]:
    """A line for each value of a config, not yet resolved, that refers to what it must not, or to itself."""
    return foreign_references(values) or _Sizes(values).problems()


def foreign_references(values: Any) -> list[str]:
    """A line for each value that refers to anything but other keys and the time."""
    return [
        f"{'.'.join(path)} must refer to other keys (${{key}}) or to ${{now:%Y}} alone, got {text[:100]!r}: "
        "write the value itself"
        for path, text in _texts(values)
        if "${" in PLAIN.sub("", text)
    ]


def children(node: Any) -> Iterable[tuple[Any, Any]]:
    """The keys and values of a mapping, and those of a list by their numbers; nothing else has any."""
    return node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()


def nodes(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every node of a config with the keys that lead to it, the whole of it first."""
    yield path, tree
    for key, child in children(tree):
        yield from nodes(child, (*path, str(key)))


def _texts(values: Any) -> list[tuple[tuple[str, ...], str]]:
    return [(path, node) for path, node in nodes(values) if isinstance(node, str)]


class _Sizes:
    """How much each value stands for, without making any of it."""

    def __init__(self, values: Any) -> None:
        self._values = values
        self._known: dict[tuple[str, ...], int] = {}
        self._waiting: set[tuple[str, ...]] = set()

    def problems(self) -> list[str]:
        lines = [self._problem(path, text) for path, text in _texts(self._values) if "${" in text]
        if not any(lines) and self._size((), self._values) > MAX_SIZE:
            lines = [f"the config stands for more than {MAX_SIZE:,} characters, with its references filled in"]
        return [line for line in lines if line][:1]  # what leads there is as large

    def _problem(self, path: tuple[str, ...], text: str) -> str:
        try:
            size = self._size(path, text)
        except RecursionError:
            return f"{'.'.join(path)} refers to itself: got {text[:100]!r}"
        return f"{'.'.join(path)} stands for more than {MAX_SIZE:,} characters" if size > MAX_SIZE else ""

    def _size(self, path: tuple[str, ...], node: Any) -> int:
        if path in self._waiting:
            raise RecursionError
        if path not in self._known:
            self._waiting.add(path)
            try:
                self._known[path] = min(self._sum(path, node), MAX_SIZE + 1)
            finally:
                self._waiting.remove(path)
        return self._known[path]

    def _sum(self, path: tuple[str, ...], node: Any) -> int:
        if isinstance(node, str):
            return len(node) + sum(self._referred(path, name) for name in PLAIN.findall(node) if name)
        return 1 + sum(self._size((*path, str(key)), child) for key, child in children(node))

    def _referred(self, path: tuple[str, ...], name: str) -> int:
        """Of what a reference leads to; through another one, of all that that one leads to."""
        upwards = len(name) - len(name.lstrip("."))
        names = (*(path[:-upwards] if upwards else ()), *name.lstrip(".").split("."))
        node = self._values
        for depth, key in enumerate(names):
            if isinstance(node, list) and INDEX.fullmatch(key) and -len(node) <= int(key) < len(node):
                node = node[int(key)]
            elif isinstance(node, dict) and key in node:
                node = node[key]
            else:
                return self._size(names[:depth], node) if isinstance(node, str) else 0  # who resolves it says so
        return self._size(names, node)
