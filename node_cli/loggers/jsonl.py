"""metrics.jsonl: one JSON object a line, for scripts and `jq`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

from node_cli.files import GrowingFile, cut_down
from node_cli.loggers.base import Logger, Resume, warn_of_missing
from node_cli.loggers.jsonl_file import FILE_NAME, lines_of


class JsonlLogger(Logger):
    """Scalars as `{"step": 12, "time": <unix seconds>, "train/loss": 0.5, ...}`, a line for each call.

    JSON has no non-finite numbers: they are written as the strings "nan", "inf" and "-inf", which `float()` reads.
    Histograms, figures, texts and hyperparameters are left out: the run folder holds them elsewhere.

    Raises:
        ValueError: on resume, a line is not one of ours. (A last line cut short by a kill is dropped.)
    """

    takes_images = False

    def __init__(self, folder: Path, resume: Resume | None) -> None:
        path = folder / FILE_NAME
        kept = _keep_until(path, resume or Resume(-1, -1))
        if resume is not None:
            warn_of_missing(path, kept, resume)
        self._file = GrowingFile(path)

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        record = {"step": step, "time": time.time()} | {
            tag: value if math.isfinite(value) else str(float(value)) for tag, value in values.items()
        }
        self._file.write(f"{json.dumps(record, allow_nan=False)}\n".encode())

    def flush(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


def _keep_until(path: Path, resume: Resume) -> int:
    """Takes the lines after it, and a last one cut short, out of the file; the last step that stays, -1 for none."""
    lines = lines_of(path) if path.exists() else []
    kept = [
        (line, int(record["step"]))
        for line, record in lines
        if record["step"] <= resume.step and record.get("epoch", -1) <= resume.epoch  # that of an evaluation alone
    ]
    if path.exists():
        cut_down(path, b"".join(line + b"\n" for line, _ in kept))
    return max((step for _, step in kept), default=-1)
