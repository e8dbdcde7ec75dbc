"""TensorBoard: scalars, histograms, pictures, text and hyperparameters in one run."""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import custom_scalars
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from node_cli.files import write_whole
from node_cli.loggers.base import Logger

# Category -> chart -> tags (regular expressions, matched from the start of a tag).
LAYOUT = {
    "Learning": {
        "loss": ["Multiline", ["train/loss$", "val/loss$"]],
        "accuracy": ["Multiline", ["train/accuracy$", "val/accuracy$", "test/accuracy$"]],
        "learning rate": ["Multiline", ["lr$"]],
    },
    "ODE solve": {
        "NFE, forward and backward": ["Multiline", ["nfe/forward", "nfe/backward"]],
        "solver steps": ["Multiline", ["solver/accepted", "solver/rejected"]],
        "step size: smallest, mean, first": [
            "Multiline",
            ["solver/step_min$", "solver/step_mean$", "solver/step_first$"],
        ],
    },
    "Cost": {
        "time of a step (ms)": ["Multiline", ["time/step_ms"]],
        "peak memory (MB)": ["Multiline", ["memory/peak_mb"]],
    },
}


class TensorBoardLogger(Logger):
    """One event writer in the run folder.

    A resumed run opens a second event file there, and cuts the first one at `resume_step`.

    Args:
        folder: the run folder.
        resume_step: steps up to this one stay; None: the run starts, and nothing that stands there stays.
        flush_secs: how often events go to disk, in seconds.

    Raises:
        ValueError: `flush_secs` is below 1.
    """

    def __init__(self, folder: Path, resume_step: int | None, flush_secs: int) -> None:
        if flush_secs < 1:
            raise ValueError(f"logger.tensorboard.flush_secs: got {flush_secs}, must be at least 1 (second)")
        self._first_step = 0 if resume_step is None else resume_step + 1
        _cut(folder, self._first_step)
        # The purge tells a server that has read the uncut file already. It takes the first such mark for the start of
        # the run and obeys those that follow, so a new run leaves one too.
        self._writer = SummaryWriter(str(folder), purge_step=self._first_step, flush_secs=flush_secs)
        self._file_writer: Any = self._writer.file_writer
        self._session_end: Any = None
        self._add_at_start(custom_scalars(LAYOUT))

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def log_histogram(self, step: int, tag: str, values: Tensor) -> None:
        """Non-finite values are left out; if no other is there, nothing is recorded."""
        values = values.detach().float()
        finite = values[values.isfinite()]
        if finite.numel() > 0:
            self._writer.add_histogram(tag, finite, step)

    def log_image(self, step: int, tag: str, image: np.ndarray) -> None:
        self._writer.add_image(tag, image, step, dataformats="HWC")

    def log_text(self, tag: str, text: str) -> None:
        # TensorBoard reads Markdown, where an indented block is shown as it stands.
        self._writer.add_text(tag, textwrap.indent(text, "    "), self._first_step)

    def log_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Names are dotted ("model.width"); what is neither number nor text is shown as JSON, null is left out.

        `SummaryWriter.add_hparams` would open a second run for them; these lie in the same one, so that the metrics
        are the last values of the run's own scalars. Nor is there a list of columns: a server takes the list of one run
        for all, and without any gathers the columns, and every scalar as a metric, from all runs.
        """
        _, session_start, self._session_end = hparams_summaries(dict(_flatten(hparams)), {})
        self._add_at_start(session_start)

    def flush(self) -> None:
        self._writer.flush()

    def finish(self) -> None:
        if self._session_end is not None:
            self._add_at_start(self._session_end)

    def close(self) -> None:
        self._writer.close()

    def _add_at_start(self, summary: Any) -> None:
        self._file_writer.add_summary(summary, self._first_step)


def _cut(folder: Path, first_step: int) -> None:
    """Take the events from `first_step` on, and a last one cut short by a kill, out of the event files.

    TensorBoard's faster reader knows no purge: it would show them wherever the resumed run does not write over them.
    """
    for path in folder.glob("events.out.tfevents.*"):
        kept = io.BytesIO()
        writer = RecordWriter(kept)
        for record in RawEventFileLoader(str(path)).Load():
            if Event.FromString(record).step < first_step:
                writer.write(record)
        write_whole(path, kept.getvalue())


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif value is not None:  # a text among numbers: a server could not sort the column
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> float | str:
    """A finite number or a text; TensorBoard's server answers in JSON, which has no infinity."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number or isinstance(value, str) else json.dumps(value)
