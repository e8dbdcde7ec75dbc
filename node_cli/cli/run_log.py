"""Where the messages of a run go."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Messages go to the console as they stand and to `run.log` with their times."""
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    console.addFilter(_not_in_the_way_of_the_bar)
    file = logging.FileHandler(path, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("node_cli")
    root.setLevel(logging.INFO)
    for handler in (console, file):
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in (console, file):
            root.removeHandler(handler)
            handler.close()


def _not_in_the_way_of_the_bar(record: logging.LogRecord) -> bool:
    """Where the progress bar is shown, the line of each epoch goes to the file only."""
    is_epoch_line = record.name == "node_cli.training.trainer" and record.levelno == logging.INFO
    return not (is_epoch_line and sys.stderr.isatty())
