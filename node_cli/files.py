"""Files that are there whole or not at all, files that grow without losing a byte, and files of a stranger's.

A folder that someone else has made may hold anything: pipes that never end, devices, links to somewhere else. What lies
in such a folder is read by `read_bytes` and `read_text` alone, and a file of it that grows is not a link.

All functions raise OSError where a file cannot be read or written, or is a link, pipe, device or folder.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

# How a file begins that is not yet whole. A name of its own: TensorBoard reads every file that has "tfevents" in its.
TEMPORARY = ".unfinished"
NO_WAITING = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY  # for a pipe's other end, say
APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # what a disk says that cannot take more
MAX_TEXT = 1 << 20  # bytes; a config of ours has some 5,000


def read_bytes(path: Path, limit: int, inside: Path | None = None) -> bytes:
    """The content of a regular file; where `inside` is given, of one that really lies in that folder.

    Raises:
        OSError: it cannot be read, is a pipe, device, socket or folder, has more than `limit` bytes, or is reached
            through a link that leads out of `inside`. Its `strerror` says which.
    """
    check_inside(path, inside)
    descriptor = _regular(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        size = os.fstat(descriptor).st_size
        if size <= limit:
            content = bytearray()
            while len(content) <= limit and (part := file.read(min(1 << 24, limit + 1 - len(content)))):
                content += part
            size = len(content)
    if size > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit:,} bytes", str(path))
    return bytes(content)


def read_end(path: Path, length: int, inside: Path | None = None) -> bytes:
    """The last bytes of such a file, `length` at most."""
    check_inside(path, inside)
    with os.fdopen(_regular(path, os.O_RDONLY), "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - length))
        return file.read(length)


def read_text(path: Path, limit: int = MAX_TEXT, inside: Path | None = None) -> str:
    """The same, as UTF-8. Raises UnicodeDecodeError if it is not text."""
    return read_bytes(path, limit, inside).decode("utf-8")


def check_inside(path: Path, folder: Path | None) -> None:
    """Raises OSError where a link leads out of the folder."""
    if folder is not None and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise OSError(errno.ELOOP, f"it is a link that leads out of {folder}", str(path))


def kind_of(path: Path) -> str | None:
    """What is at the path: "a file", "a folder", "a link" and so on; None: nothing."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    kinds = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link"}
    return kinds.get(stat.S_IFMT(mode), "a device, a pipe or a socket")


def _regular(path: Path, flags: int) -> int:
    """The descriptor of a regular file, opened without waiting for anybody; links are followed as `flags` say."""
    # Looked at before it is opened: a tape would be wound back.
    _require_plain(path if flags & os.O_NOFOLLOW else Path(os.path.realpath(path)))
    return os.open(path, flags | NO_WAITING, 0o666)


def _require_plain(path: Path) -> None:
    """Refuses links, and whatever else is there and is no regular file."""
    kind = kind_of(path)
    if kind == "a folder":
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind not in ("a file", None):
        is_link = kind == "a link"
        reason = "it is a link" if is_link else "it is no regular file"
        raise OSError(errno.ELOOP if is_link else errno.EINVAL, reason, str(path))


def write_whole(path: Path, content: bytes) -> None:
    """Puts `content` in the place of the file, and checks it; killed at any time, the old or the new one is there."""
    with replacing(path) as temporary:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if temporary.read_bytes() != content:
            raise OSError(errno.EIO, "what was read back is not what was written")


def finite(value: Any) -> Any:
    """Plain containers as JSON may hold them, which has no infinity and no NaN: they become null."""
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def link_whole(source: Path, target: Path) -> None:
    """Gives the file a second name where the file system can, a copy elsewhere; in one step, as `write_whole`."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())


def remove_unfinished(folder: Path) -> None:
    """Removes what processes that were killed while they wrote have left in a folder that nobody else writes to."""
    for path in folder.glob(f"{TEMPORARY}*"):
        path.unlink()


def cut_down(path: Path, content: bytes) -> None:
    """Leaves `content`, which is part of the file, in it; where only its end goes, that needs no room on the disk."""
    _require_plain(path)
    if path.read_bytes().startswith(content):
        os.truncate(path, len(content))
    else:
        write_whole(path, content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` that no other process has; what has it at the end takes the place of the file."""
    _require_plain(path)
    temporary = path.with_name(f"{TEMPORARY}-{secrets.token_hex(8)}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk it would keep it full
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # or a crash of the machine may take the new name back
    finally:
        os.close(folder)


def append(path: Path, content: bytes) -> None:
    """Adds to the end of the file, now."""
    with os.fdopen(_regular(path, APPENDING), "ab") as file:
        file.write(content)


class UnwrittenError(OSError):
    """What a file should hold is not on the disk; the message says which file, how much, and why."""


class GrowingFile:
    """A file that is only appended to, and that a full disk delays but does not harm.

    What cannot be written now, for whatever reason the system gives, waits in memory and goes before anything later
    as soon as it can, from the very byte where a partial write ended. That it fails, and that it has caught up, is
    logged once each.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.fdopen(_regular(path, APPENDING), "ab", buffering=0)
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


@contextmanager
def closed_at_the_end(close: Callable[[], None]) -> Iterator[None]:
    """Calls `close` at the end; an error before is what is raised then, and not what is unwritten besides."""
    try:
        yield
    except BaseException:
        with suppress(UnwrittenError):
            close()
        raise
    close()


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies in the folder, by its words alone: links there are those of whoever owns the folder."""
    return Path(os.path.abspath(path)).is_relative_to(folder)
