"""Files of a report: whole or not at all, a mistake in their place is one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from node_cli.config import ConfigError
from node_cli.files import write_whole


def write(path: Path, content: bytes) -> None:
    """Replaces the file. Raises ConfigError if it cannot be written."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        write_whole(path, content)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def make_folder(path: Path) -> None:
    """Makes the folder and those above it, where they are not there. Raises ConfigError if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}") from error
