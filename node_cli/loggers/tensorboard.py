"""TensorBoard: scalars, histograms, figures, text and hyperparameters in one run."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from torch import Tensor
from torch.utils.tensorboard import summary

from node_cli.loggers.base import Logger, Resume
from node_cli.loggers.event_file import PATTERN, EventFile, cut_event_files

# Category -> chart -> tags (regular expressions, matched from the start of a tag).
LAYOUT = {
    "ODE solve": {
        "NFE, forward and backward": ["Multiline", ["nfe/forward", "nfe/backward"]],
        "NFE of evaluations": ["Multiline", ["nfe/val$", "nfe/test$"]],
        "solver steps": ["Multiline", ["solver/accepted", "solver/rejected", "solver/backward_"]],
        "step size: smallest, mean, first": [
            "Multiline",
            ["solver/step_min$", "solver/step_mean$", "solver/step_first$"],
        ],
    },
    "Gradient (audit.every_n_epochs)": {
        "relative error, off the pass and off the ODE": [
            "Multiline",
            ["audit/pass_relative_error$", "audit/relative_error$"],
        ],
        "cosine with the gradient of the ODE": ["Multiline", ["audit/cosine$"]],
        "the solve back misses the start": ["Multiline", ["audit/reconstruction$"]],
    },
    "Cost": {
        "time of a step (ms)": ["Multiline", ["time/step_ms"]],
        "peak memory (MB)": ["Multiline", ["memory/peak_mb"]],
    },
}


# Limits of the bins of histograms, as TensorBoard's own writers take them.
POSITIVE = np.cumprod(np.r_[1e-12, np.full(773, 1.1)])
BINS = np.concatenate([-POSITIVE[::-1], [0.0], POSITIVE])


class TensorBoardLogger(Logger):
    """One event file in the run folder.

    A resumed run opens a second event file there, and cuts the first one where it resumes.

    Args:
        flush_secs: how often events go to disk, in seconds.
        run_name: a folder below `folder` for the events, by which TensorBoard calls the run too; None: `folder` itself.
            Events that are there already go on where they are.

    Raises:
        ValueError: `flush_secs` is below 1, or `run_name` is no name of a folder.
    """

    def __init__(self, folder: Path, resume: Resume | None, flush_secs: int, run_name: str | None) -> None:
        if flush_secs < 1:
            raise ValueError(f"logger.tensorboard.flush_secs: got {flush_secs}, must be at least 1 (second)")
        folder = _folder_of_events(folder, run_name)
        self._first_step = 0 if resume is None else resume.step + 1
        cut_event_files(folder, resume)
        self._events = EventFile(folder, self._first_step, flush_secs)
        self._session_end: Any = None

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._events.add(step, Summary(value=scalars))

    def log_histogram(self, step: int, tag: str, values: Tensor) -> None:
        """Non-finite values are left out; if no other is there, nothing is recorded."""
        values = values.detach().float()
        finite = values[values.isfinite()]
        if finite.numel() > 0:
            self._events.add(step, _histogram(tag, finite.numpy(force=True)))

    def log_image(self, step: int, tag: str, image: np.ndarray) -> None:
        self._events.add(step, summary.image(tag, image, dataformats="HWC"))

    def log_text(self, tag: str, text: str) -> None:
        # TensorBoard reads Markdown, where an indented block is shown as it stands.
        self._add_at_start(summary.text(tag, textwrap.indent(text, "    ")))

    def log_metric_names(self, names: Sequence[str]) -> None:
        """A chart for each, with the training and all splits, beside the same metric of other forecasts."""
        charts = {
            name: ["Multiline", [f"{part}/{re.escape(each)}$" for part in ("train", "val", "test") for each in both]]
            for name, both in _together(names).items()
        }
        learning = {**charts, "learning rate": ["Multiline", ["lr$"]]}
        self._add_at_start(summary.custom_scalars({"Learning": learning, **LAYOUT}))

    def log_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Names are dotted ("model.width"); what is neither number nor text is shown as JSON, null is left out.

        `SummaryWriter.add_hparams` would open a second run for them; these lie in the same one, so that the metrics
        are the last values of the run's own scalars. Nor is there a list of columns: a server takes the list of one run
        for all, and without any gathers the columns, and every scalar as a metric, from all runs.
        """
        _, session_start, self._session_end = summary.hparams(dict(_flatten(hparams)), {})
        self._add_at_start(session_start)

    def flush(self) -> None:
        self._events.flush()

    def finish(self) -> None:
        if self._session_end is not None:
            self._add_at_start(self._session_end)

    def close(self) -> None:
        self._events.close()

    def _add_at_start(self, content: Any) -> None:
        self._events.add(self._first_step, content)


def _together(names: Sequence[str]) -> dict[str, list[str]]:
    """The names that a chart of each shows: `persistence_rmse` in that of `rmse`, not in one of its own."""
    bases = {name: [base for base in names if name.endswith(f"_{base}")] for name in names}
    with_others = {max(found, key=len) for found in bases.values() if found}
    charts = {name: [name] for name in names if name in with_others or not bases[name]}
    for name, found in bases.items():
        if name not in charts:
            charts[max(found, key=len)].append(name)
    return charts


def _folder_of_events(folder: Path, run_name: str | None) -> Path:
    known = [*folder.glob(PATTERN), *folder.glob(f"*/{PATTERN}")]
    if known:
        return known[0].parent
    if run_name is None:
        return folder
    if not re.fullmatch(r"(?!\.)[\w.,=+@%-]{1,200}", run_name, re.ASCII):
        raise ValueError(
            f"logger.tensorboard.run_name: got {run_name!r}, must be one name of letters, digits and .,=+@%-"
        )
    (folder / run_name).mkdir(exist_ok=True)
    return folder / run_name


def _histogram(tag: str, values: np.ndarray) -> Summary:
    """Of empty buckets in a row, as around zero, only the last is kept: shown alike, in a quarter of the bytes."""
    counts, _ = np.histogram(values, BINS)
    kept = (counts > 0) | np.append(counts[1:] > 0, False)
    histogram = HistogramProto(
        min=values.min(),
        max=values.max(),
        num=values.size,
        sum=values.sum(),
        sum_squares=values.dot(values),
        bucket_limit=BINS[1:][kept],
        bucket=counts[kept],
    )
    return Summary(value=[Summary.Value(tag=tag, histo=histogram)])


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
