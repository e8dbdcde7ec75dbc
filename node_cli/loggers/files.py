"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def rewrite(path: Path, content: bytes) -> None:
    """Put `content` in the place of the file; killed at any time, one of the two is there."""
    # A name of its own: TensorBoard reads every file that has "tfevents" in its name.
    temporary = path.with_name("rewrite.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
