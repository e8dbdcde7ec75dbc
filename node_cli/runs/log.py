"""Where the messages of a run go."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from pathlib import Path

from tqdm import tqdm

from node_cli.files import GrowingFile, closed_at_the_end, read_end


class RunLog(logging.Handler):
    """Lines in a file that a full disk delays but does not harm; the file is there from the first message on."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file: GrowingFile | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Appends one message."""
        if self._file is None:
            self._file = GrowingFile(self._path)
            if read_end(self._path, 1) not in (b"", b"\n"):  # a killed run has ended within a line
                self._file.write(b"\n")
        self._file.write(f"{self.format(record)}\n".encode(errors="backslashreplace"))

    def close(self) -> None:
        """Lets go of the file. Raises UnwrittenError if some messages could not be written."""
        super().close()
        if self._file is not None:
            self._file.close()


class Console(logging.StreamHandler):
    """Lines on a stream, which may lie on a full disk too, or be a pipe that nobody reads: then they are left out."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one message, above the progress bar where there is one."""
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """`run.log` has the line; any other error is a bug and is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def held_back() -> Iterator[list[logging.LogRecord]]:
    """Messages from before there is a folder are kept for `log_to`."""
    held, root = BufferingHandler(sys.maxsize), logging.getLogger("node_cli")
    root.setLevel(logging.INFO)
    root.addHandler(held)
    try:
        yield held.buffer
    finally:
        root.removeHandler(held)


@contextmanager
def log_to(path: Path, earlier: Sequence[logging.LogRecord] = ()) -> Iterator[None]:
    """Messages, first the `earlier` ones, go to the console as they stand and to `run.log` with their times.

    Raises:
        UnwrittenError: at the end, and nothing else went wrong: some messages could not be written.
    """
    console, file = Console(sys.stdout), RunLog(path)
    console.setFormatter(logging.Formatter("%(message)s"))
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("node_cli")
    root.setLevel(logging.INFO)
    for handler in (console, file):
        root.addHandler(handler)
        for record in earlier:
            handler.handle(record)
    try:
        with closed_at_the_end(file.close):
            yield
    finally:
        for handler in (console, file):
            root.removeHandler(handler)
        console.close()
