"""Files that are there whole or not at all, and files that grow without losing a byte."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

# A name of its own: TensorBoard reads every file that has "tfevents" in its name.
TEMPORARY = ".unfinished"


def write_whole(path: Path, content: bytes) -> None:
    """Puts `content` in the place of the file; killed at any time, the old or the new one is there."""
    temporary = path.with_name(TEMPORARY)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # there only if something failed: on a full disk it would keep it full


def cut_down(path: Path, content: bytes) -> None:
    """Leaves `content`, which is part of the file, in it; where only its end goes, that needs no room on the disk."""
    if path.read_bytes().startswith(content):
        os.truncate(path, len(content))
    else:
        write_whole(path, content)


class UnwrittenError(OSError):
    """What a file should hold is not on the disk; the message says which file, how much, and why."""


class GrowingFile:
    """A file that is only appended to, and that a full disk delays but does not harm.

    What cannot be written now, for whatever reason the system gives, waits in memory and goes before anything later
    as soon as it can, from the very byte where a partial write ended. That it fails, and that it has caught up, is
    logged once each.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._waiting = bytearray()
        self._error: OSError | None = None  # why something waits

    def write(self, content: bytes) -> None:
        """Appends `content` now, or later."""
        self._waiting += content
        was_failing = self._error is not None
        self._write_waiting()  # in a state to be written to before it logs: the log may lie in this file
        if self._error is not None and not was_failing:
            log.warning(
                "%s cannot be written (%s): what belongs there is kept in memory until it can",
                self._path,
                self._error.strerror,
            )
        elif was_failing and self._error is None:
            log.warning("%s can be written again, and nothing is missing in it", self._path)

    def sync(self) -> None:
        """Hands everything to the disk itself.

        Raises:
            UnwrittenError: something is not there; it still waits, if it could not be written.
        """
        self.write(b"")
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UnwrittenError(f"{self._path} may be incomplete on the disk: {error.strerror}") from error
        if self._error is not None:
            count = f"{len(self._waiting):,} bytes"
            raise UnwrittenError(f"{self._path}: {count} could not be written: {self._error.strerror}") from self._error

    def close(self) -> None:
        """Tries a last time, and lets go of the file.

        Raises:
            UnwrittenError: something is not on the disk, and is lost.
        """
        try:
            self.sync()
        finally:
            self._file.close()

    def _write_waiting(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting)]
        except OSError as error:
            self._error = error
        else:
            self._error = None


class Closable(Protocol):
    """What has to be closed, and may say then that something is unwritten."""

    def close(self) -> None: ...


@contextmanager
def closed_at_the_end(file: Closable) -> Iterator[None]:
    """Closes `file` at the end; an error before is what is told then, and not what is unwritten besides."""
    try:
        yield
    except BaseException:
        with suppress(UnwrittenError):
            file.close()
        raise
    file.close()
