"""A logger that tells a study how each epoch went, and ends a run that has fallen behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from torch import Tensor

from node_cli.loggers.base import Logger


class PrunedError(Exception):
    """The run has fallen behind; `epoch` was its last, with `figures` on validation."""

    def __init__(self, metric: str, epoch: int, figures: Mapping[str, float]) -> None:
        super().__init__(f"after epoch {epoch}, with {metric} {figures[metric]:.4g}")
        self.epoch = epoch
        self.figures = {tag: value for tag, value in figures.items() if tag.startswith("val/")}


class Reporter(Logger):
    """Passes `metric` of each epoch to `trial`. What a resumed run reports again is passed by.

    Raises:
        PrunedError: the study's pruner would not go on; never after the last of `epochs`, when nothing is saved.
    """

    takes_images = False

    def __init__(self, trial: optuna.Trial, metric: str, epochs: int | None) -> None:
        self._trial, self._metric, self._epochs = trial, metric, epochs
        (frozen,) = (t for t in trial.study.get_trials(deepcopy=False) if t.number == trial.number)
        self._reported = set(frozen.intermediate_values)

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        if "epoch" not in values or self._metric not in values:
            return
        epoch = int(values["epoch"])
        if epoch not in self._reported:
            self._trial.report(values[self._metric], epoch)
        if epoch != self._epochs and self._trial.should_prune():
            raise PrunedError(self._metric, epoch, values)

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
        """Nothing waits."""

    def finish(self) -> None:
        """The study is told by who runs the trial."""

    def close(self) -> None:
        """Nothing is open."""
