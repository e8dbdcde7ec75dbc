"""Standard streams that are closed, full, or that nobody reads any more.

What trains bears them, as all it says is in files too; a command whose output is all that it does ends with a line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class OutputError(Exception):
    """Standard output cannot be written; `is_unread`: its reader, `head` say, has seen enough."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {error.strerror}")
        self.is_unread = isinstance(error, BrokenPipeError)


class Stream:
    """A text stream whose failures are passed by, unless it `is_needed`."""

    def __init__(self, stream: TextIO, *, is_needed: bool) -> None:
        self.stream, self.is_needed = stream, is_needed

    def write(self, text: str) -> int:
        """As that of the stream, or nothing."""
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        """As that of the stream, or nothing."""
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked of a copy that has no stream yet, which would be asked for it without end
            raise AttributeError(name)
        return getattr(self.stream, name)

    def _try(self, call: Callable[..., Any], *words: str) -> None:
        try:
            call(*words)
        except OSError as error:
            if self.is_needed:
                raise OutputError(error) from error


@contextmanager
def bearing_streams(*, needs_output: bool) -> Iterator[None]:
    """Within it no write to a standard stream fails, but for one to the output where that is needed."""
    _fill_closed()
    before = sys.stdout, sys.stderr
    sys.stdout = Stream(sys.stdout, is_needed=needs_output)
    sys.stderr = Stream(sys.stderr, is_needed=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _let_go(stream)


def output_may_be_lost() -> None:
    """From now on what is done does not depend on the output."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.is_needed = False


def _fill_closed() -> None:
    """The next file would get the number of a closed stream, and all that is written to that."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, number)
            if nothing != number:
                os.close(nothing)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def _let_go(stream: TextIO) -> None:
    """What cannot be written now would be an error of the interpreter's at the very end."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
            stream.flush()
