"""What a logger does, and several loggers as one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

log = logging.getLogger(__name__)


class Resume(NamedTuple):
    """Where the checkpoint stands that a resumed run continues from."""

    step: int  # the global one: records of later steps are taken back
    epoch: int  # finished epochs: so is the record of a later epoch, though it stands under this step
    recorded: int = 0  # the last step that was recorded before the checkpoint was written


def warn_of_missing(path: Path, kept: int, resume: Resume) -> None:
    """Says where records that were written before the checkpoint are no longer there; `kept` is the last that is."""
    if kept < resume.recorded:
        there = f"ends at step {kept}" if kept >= 0 else "holds nothing"
        log.warning(
            "%s %s, and the checkpoint stands at step %d: what was recorded between them is missing in it",
            path,
            there,
            resume.step,
        )


class Logger:
    """A place that keeps the records of one run.

    A logger is built as `logger(folder, resume, **its own keys)`: `folder` is the run folder, `resume` says where a
    resumed run continues (None for a run that starts). Whatever stands in the folder after that comes from a run that
    was killed; the logger takes it back, so that no step and no epoch stands twice. A logger leaves out the methods for
    what it does not keep.
    """

    takes_images = True  # where no logger does, none is drawn: it takes as long as a short run

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of one global step, each under its tag ("train/loss")."""

    def log_histogram(self, step: int, tag: str, values: Tensor) -> None:
        """Record how `values`, of any shape, are distributed."""

    def log_image(self, step: int, tag: str, image: np.ndarray) -> None:
        """Record a figure: (height, width, 3), uint8."""

    def log_text(self, tag: str, text: str) -> None:
        """Record a text, once, at the start; it is shown as it stands."""

    def log_metric_names(self, names: Sequence[str]) -> None:
        """Record what is measured in training and of every split ("loss", ...), once, at the start."""

    def log_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Record the (nested) hyperparameters, once, at the start."""

    def flush(self) -> None:
        """Hand everything recorded so far to the disk; called before a checkpoint is written.

        Raises:
            OSError: something is not there: a checkpoint written now would stand ahead of the records.
        """

    def finish(self) -> None:
        """Record that the run came to its end; a run that failed or was stopped never says so."""

    def close(self) -> None:
        """Flush and let go of the files.

        Raises:
            OSError: something could not be written, and is lost.
        """


class Loggers(Logger):
    """Passes every record to each of `loggers`; none is fine."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = tuple(loggers)
        self.takes_images = any(logger.takes_images for logger in self.loggers)

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        for logger in self.loggers:
            logger.log_scalars(step, values)

    def log_histogram(self, step: int, tag: str, values: Tensor) -> None:
        for logger in self.loggers:
            logger.log_histogram(step, tag, values)

    def log_image(self, step: int, tag: str, image: np.ndarray) -> None:
        for logger in self.loggers:
            logger.log_image(step, tag, image)

    def log_text(self, tag: str, text: str) -> None:
        for logger in self.loggers:
            logger.log_text(tag, text)

    def log_metric_names(self, names: Sequence[str]) -> None:
        for logger in self.loggers:
            logger.log_metric_names(names)

    def log_hparams(self, hparams: Mapping[str, Any]) -> None:
        for logger in self.loggers:
            logger.log_hparams(hparams)

    def flush(self) -> None:
        with ExitStack() as stack:  # each is flushed, whatever the others raise
            for logger in reversed(self.loggers):
                stack.callback(logger.flush)

    def finish(self) -> None:
        for logger in self.loggers:
            logger.finish()

    def close(self) -> None:
        with ExitStack() as stack:
            for logger in reversed(self.loggers):
                stack.callback(logger.close)
