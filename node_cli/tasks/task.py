"""What a task is: it alone knows the loss, the predictions, the metrics, and which of two validations is better."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from node_cli.batch import Batch, take

Objective = tuple[str, Literal["min", "max"]]
FAILED = "failed"  # among rows: True for a sample without a prediction, because its solve failed


class Loss(NamedTuple):
    """Sums, so that the shards of a batch, and the batches of an epoch, add up.

    Attributes:
        total: the loss summed over what `weight` counts, 0-dim, with a graph; what is minimised is `total / weight`.
        weight: how much it is a sum over: samples, observed values, dimensions; 0-dim.
        metrics: what else is shown of training, by name: sums over the same, without a graph; none is named `loss`.
    """

    total: Tensor
    weight: Tensor
    metrics: Mapping[str, Tensor]


class Task(ABC):
    """A kind of problem: its loss, its predictions and its metrics.

    Attributes:
        metric_names: what `metrics` measures.
        objective: one of the metrics, and whether less of it is better ("min") or more ("max"): validations are
            compared by it. Of two that are equal in it, the one of smaller `loss` is better, where there is such a
            metric; of two that are equal in both, the earlier one.
        offers: what a model may ask for by the name of a parameter, beside what the dataset offers: `num_outputs`, ...
    """

    metric_names: tuple[str, ...]
    objective: Objective
    offers: Mapping[str, Any] = {}

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, progress: float) -> Loss:
        """The loss of a batch in training, at `progress` of the run: 0 at its first step, nearly 1 at its last."""

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Predictions by name, a row a sample: what `metrics` is made of and `node-predict` writes.

        `model` is in evaluation mode and no gradient is taken. All random numbers come from `generator` (on the CPU).
        """

    @abstractmethod
    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """The metrics of a whole split: all its samples, and the rows that `predict` gave for them.

        Where solves may fail (`solver.on_failure` is not `raise`), `rows` hold `failed` too, one bool a sample. The
        rows of such a sample are NaN, or -1 for whole numbers; `solved` leaves them out.
        """

    def details(self, batch: Batch, rows: Batch) -> dict[str, Any]:
        """Further results on a whole split for `summary.json`: plain containers."""
        return {}

    def figures(self, model: nn.Module, batch: Batch, rows: Batch) -> Mapping[str, Figure]:
        """Figures of the results on a whole split, by name."""
        return {}

    def sample_figures(self, batch: Batch) -> Mapping[str, Figure]:
        """Figures of a batch of the training data, by name."""
        return {}


def solved(batch: Batch, rows: Batch) -> tuple[Batch, Batch]:
    """Samples and rows without those whose solve failed."""
    if FAILED not in rows:
        return batch, rows
    return take(batch, ~rows[FAILED]), take(rows, ~rows[FAILED])
