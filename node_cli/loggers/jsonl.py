"""metrics.jsonl: one JSON object a line, for scripts and `jq`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from node_cli.files import GrowingFile, cut_down, read_bytes
from node_cli.loggers.base import Logger, Resume, warn_of_missing

FILE_NAME = "metrics.jsonl"
MAX_BYTES = 1 << 30  # a million lines have some 300 million


class JsonlLogger(Logger):
    """Scalars as `{"step": 12, "time": <unix seconds>, "train/loss": 0.5, ...}`, a line for each call.

    JSON has no non-finite numbers: they are written as the strings "nan", "inf" and "-inf", which `float()` reads.
    Histograms, pictures, texts and hyperparameters are passed by: the run folder holds them elsewhere.

    Args:
        folder: the run folder.
        resume: lines up to this step and epoch stay; None: the run starts, and none stays.

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
        record = {"step": step, "time": time.time()} | {tag: _jsonable(value) for tag, value in values.items()}
        self._file.write(f"{json.dumps(record, allow_nan=False)}\n".encode())

    def log_histogram(self, step: int, tag: str, values: Tensor) -> None:
        """Passed by."""

    def log_image(self, step: int, tag: str, image: np.ndarray) -> None:
        """Passed by."""

    def log_text(self, tag: str, text: str) -> None:
        """Passed by."""

    def log_metric_names(self, names: Sequence[str]) -> None:
        """Passed by."""

    def log_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Passed by."""

    def flush(self) -> None:
        self._file.sync()

    def finish(self) -> None:
        """Passed by: `summary.json` says it."""

    def close(self) -> None:
        self._file.close()


def read_records(folder: Path) -> list[dict[str, float]]:
    """What a run has logged, a record for each whole line of its `metrics.jsonl`.

    Raises:
        ValueError: there is no such file, it cannot be read, or a line is not one of ours.
    """
    path = folder / FILE_NAME
    if not path.exists():
        raise ValueError(f"{path} does not exist: the run kept no records of this kind (logger=jsonl)")
    records = [_record(path, number, line) for number, line in enumerate(_whole_lines(path), 1)]
    return [{str(tag): float(value) for tag, value in record.items()} for record in records]


def _jsonable(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


def _keep_until(path: Path, resume: Resume) -> int:
    """Takes the lines after it, and a last one cut short, out of the file; the last step that stays, -1 for none."""
    if not path.exists():
        return -1
    whole = _whole_lines(path)
    records = [_record(path, number, line) for number, line in enumerate(whole, 1)]
    found = [(int(record["step"]), int(record.get("epoch", -1))) for record in records]  # of an evaluated epoch alone
    stays = [step <= resume.step and epoch <= resume.epoch for step, epoch in found]
    cut_down(path, b"".join(line + b"\n" for line, is_kept in zip(whole, stays, strict=True) if is_kept))
    return max((step for (step, _), is_kept in zip(found, stays, strict=True) if is_kept), default=-1)


def _whole_lines(path: Path) -> list[bytes]:
    """All but a last one cut short by a kill."""
    try:
        return read_bytes(path, MAX_BYTES, inside=path.parent).split(b"\n")[:-1]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _record(path: Path, number: int, line: bytes) -> dict[str, float | str]:
    """The values of a line; its step and its epoch, if it has one, are numbers."""
    try:
        record: dict[str, float | str] = json.loads(line)
        int(record["step"]), int(record.get("epoch", -1))
        for value in record.values():
            float(value)
        return record
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        start = line[:60].decode(errors="backslashreplace")
        raise ValueError(
            f"{path}, line {number}: expected a JSON object with a step, got {start!r}; "
            "mend or remove the line, then resume"
        ) from None
