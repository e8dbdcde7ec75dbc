"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

# A name of its own: TensorBoard reads every file that has "tfevents" in its name.
TEMPORARY = ".unfinished"


def write_whole(path: Path, content: bytes) -> None:
    """Puts `content` in the place of the file; killed at any time, the old or the new one is there."""
    temporary = path.with_name(TEMPORARY)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
