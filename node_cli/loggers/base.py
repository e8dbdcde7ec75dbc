"""What a logger does, and several loggers as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from torch import Tensor


class Logger(ABC):
    """A place that keeps the records of one run.

    A logger is built as `logger(folder, resume_step, **its own keys)`: `folder` is the run folder, `resume_step` the
    global step of the checkpoint that a resumed run continues from (None for a run that starts). Whatever stands in
    the folder after `resume_step` comes from a run that was killed; the logger takes it back, so that no step stands
    twice. A logger that cannot show a kind of record passes it by, and says so.
    """

    takes_images = True  # where no logger does, none is drawn: it takes as long as a short run

    @abstractmethod
    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers of one global step, each under its tag ("train/loss")."""

    @abstractmethod
    def log_histogram(self, step: int, tag: str, values: Tensor) -> None:
        """Record how `values`, of any shape, are distributed."""

    @abstractmethod
    def log_image(self, step: int, tag: str, image: np.ndarray) -> None:
        """Record a picture: (height, width, 3), uint8."""

    @abstractmethod
    def log_text(self, tag: str, text: str) -> None:
        """Record a text, once, at the start; it is shown as it stands."""

    @abstractmethod
    def log_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Record the (nested) hyperparameters, once, at the start."""

    @abstractmethod
    def flush(self) -> None:
        """Hand everything recorded so far to the disk; called before a checkpoint is written.

        Raises:
            OSError: something is not there: a checkpoint written now would stand ahead of the records.
        """

    @abstractmethod
    def finish(self) -> None:
        """Record that the run came to its end; a run that failed or was stopped never says so."""

    @abstractmethod
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
