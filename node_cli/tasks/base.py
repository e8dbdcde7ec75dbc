"""What a task is: it alone knows the loss, the metrics, and which of two validations is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True)
class Evaluation:
    """A model judged on one split: `metrics` of the whole split, and what the task's pictures need.

    `outputs` are predictions, one row a sample, comparable between two evaluations of the same split; the task says how
    it marks a sample without one.
    `details` are further figures for `summary.json`: plain containers.
    """

    metrics: dict[str, float]
    outputs: Tensor
    details: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """Loss and metrics of one kind of problem."""

    metric_names: tuple[str, ...]  # what `evaluate` measures, but for `failed`

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The 0-dim loss to minimise, with a graph, and the batch's metrics, without one."""

    def evaluate(self, model: nn.Module, batches: Iterable[Any], *, skip_failed: bool) -> Evaluation:
        """Judges `model`, which is in evaluation mode, on all `batches`.

        With `skip_failed`, a sample whose solve fails gets no prediction, and the metric `failed` counts these samples.

        Raises:
            SolveError: a solve failed; with `skip_failed`, that of every sample.
        """

    def rank(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """What validations are compared by: the greater tuple is the better one."""

    def agreement(self, one: Evaluation, other: Evaluation) -> float:
        """How alike two evaluations of the same split predict, 0 to 1."""

    def sample_pictures(self, batch: Any) -> dict[str, np.ndarray]:
        """Pictures of the data by tag, `(height, width, 3)` uint8."""

    def result_pictures(self, batches: Iterable[Any], evaluation: Evaluation) -> dict[str, np.ndarray]:
        """Pictures of an evaluation of `batches` by tag, `(height, width, 3)` uint8."""
