"""The journal of a study, a line for each change: whole lines, whatever becomes of disk and machine."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file

from node_cli.files import kind_of

log = logging.getLogger(__name__)


class JournalLock(BaseJournalFileLock):
    """A lock that ends with its process: Optuna's own outlives a killed one by half a minute."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


class Journal(JournalFileBackend):
    """Optuna's, but that what a full disk or a crash of the machine has left of a last line goes before the next one.

    Raises:
        OSError: the file cannot be made, or is a link or no file.
        StorageInternalError: it holds something else than such lines, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if kind_of(path) not in ("a file", None):
            raise StorageInternalError(
                f"{path} must be a file of the study, and is {kind_of(path)}: give another tune.name"
            )
        super().__init__(str(path), JournalLock(path.with_name("journal.lock")))
        with get_lock_file(self._lock):
            self._cut_torn_end()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Those that are whole, from this number on."""
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as error:
            line = max(self._log_number_offset) + 1
            raise StorageInternalError(
                f"{self._path}, line {line} is damaged, and what follows rests on it: "
                "take the file from a copy, or give another tune.name"
            ) from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """All of them, or none."""
        content = "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in logs).encode()
        with get_lock_file(self._lock):
            try:
                with self._path.open("r+b", buffering=0) as file:
                    self._append(file.fileno(), content)
            except OSError as error:
                raise StorageInternalError(f"{self._path} cannot be written: {error.strerror}") from error

    def _append(self, descriptor: int, content: bytes) -> None:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            self._cut_torn_end()
            end = os.lseek(descriptor, 0, os.SEEK_END)
        try:
            while content:
                content = content[os.write(descriptor, content) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise

    def _cut_torn_end(self) -> None:
        """Nobody has built upon the last change: whoever made it does not know it to be written."""
        content = self._path.read_bytes()
        end = content.rfind(b"\n") + 1
        while end and not _is_whole(content[:end]):
            end = content.rfind(b"\n", 0, end - 1) + 1
        if b"\n" in content and not end:
            raise StorageInternalError(f"{self._path} is no journal of a study: give another tune.name")
        if end < len(content):
            log.warning("%s: its end was torn, and is cut off after %d of %d bytes", self._path, end, len(content))
            os.truncate(self._path, end)


def _is_whole(lines: bytes) -> bool:
    """Whether the last of them is a change."""
    try:
        return isinstance(json.loads(lines[lines.rfind(b"\n", 0, -1) + 1 :]), dict)
    except ValueError:
        return False
