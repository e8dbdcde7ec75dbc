"""What a task is: only it knows the loss, the predictions, the metrics, and which of two validations is better."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from node_cli.batch import Batch, take

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Objective = tuple[str, Literal["min", "max"]]
FAILED = "failed"  # among rows: True for a sample without a prediction, because its solve failed


class Loss(NamedTuple):
    """Sums, so that the shards of a batch and the batches of an epoch add up.

    Attributes:
        total: the loss summed over what `weight` counts, 0-dim, with a graph; what is minimised is `total / weight`.
        weight: what it is a sum over, 0-dim: the number of samples, observed values or dimensions.
        metrics: what else is shown of training, by name: sums over the same, without a graph. `loss` is not a name.
    """

    total: Tensor
    weight: Tensor
    metrics: Mapping[str, Tensor]


class Task(ABC):
    """A kind of problem: its loss, its predictions and its metrics.

    Attributes:
        metric_names: the names of what `metrics` returns.
        objective: the metric that validations are compared by, and whether smaller ("min") or larger ("max") values of
            it are better. If two are equal, the one with the smaller metric `loss` is better, if there is such a
            metric; if that is equal too, the earlier one.
        differences: those of the metrics that `node-eval` compares by their difference, such as fractions of the
            samples; others by their relative change.
        inputs: the tensors of a batch that `predict` reads, and that new data must have; None: all of them.
        hidden_rows: rows that only `metrics` needs, and tensors of the batch; `node-predict` leaves them out.
        row_names: names for rows: of the values of whole-number rows, or of the columns of others. A tensor of the
            batch that is not among `inputs` may have names for its values too.
        offers: what a model may ask for by the name of a parameter, besides what the dataset offers: `num_outputs`, ...
        model_type: what a model for it must be: a class, or a union of some.
        band_samples: how many samples the bands of a prediction are made of; None: predictions have no bands.
    """

    metric_names: tuple[str, ...]
    objective: Objective
    differences: tuple[str, ...] = ()
    inputs: tuple[str, ...] | None = None
    hidden_rows: tuple[str, ...] = ()
    row_names: Mapping[str, Sequence[str]] = {}
    offers: Mapping[str, Any] = {}
    model_type: type[nn.Module] | UnionType = nn.Module
    band_samples: int | None = None

    def equip(self, model: nn.Module) -> None:
        """Adds to the model what the task learns beside it; called once, before any weights are loaded."""
        return

    def check(self, model: nn.Module, splits: Mapping[str, Batch]) -> None:
        """Refuses what cannot work with these data, before a run begins.

        Raises:
            ValueError: a setting, under its full key, does not go with the data or the model.
        """
        return

    def choose(self, model: nn.Module, train: Batch) -> None:
        """Settles what a key that says `auto` is for these training data: before `check`, and before any `loss`."""
        return

    def chosen(self) -> Mapping[str, tuple[str, str]]:
        """Full keys that say `auto`, each with what `choose` has settled on, and why."""
        return {}

    def unused(self, model: nn.Module) -> Mapping[str, str]:
        """Full keys, of the task and the model, that have no effect in this run, each with the reason and what to do.

        A new run refuses those that do not have the value of the shipped YAML.
        """
        return {}

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, progress: float) -> Loss:
        """The training loss of a batch; `progress` of the run goes from 0 at its first step to nearly 1 at its last."""

    def phase(self, progress: float) -> str:
        """What kind of loss there is at this progress: where it changes, an optimizer forgets its running means.

        Those of gradients that were small make the first steps on large ones far too long.
        """
        return ""

    @abstractmethod
    def predict(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Predictions by name, one row for each sample: what `metrics` uses and `node-predict` writes.

        `model` is in evaluation mode, without gradients. All random numbers must come from `generator` (on the CPU).
        """

    @abstractmethod
    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """The metrics of a whole split, given all its samples and the rows that `predict` returned for them.

        If failed solves are skipped (`solver.on_failure` is not `raise`), `rows` also contains `failed`, one bool for
        each sample. The rows of failed samples are NaN, or -1 for whole numbers; `solved` leaves them out.
        """

    def details(self, model: nn.Module, batch: Batch, rows: Batch) -> dict[str, Any]:
        """Further results of a whole split for `summary.json`, in plain containers.

        `by_horizon` are metrics by how many times ahead a prediction looks, which `node-report` shows: `steps`, the
        whole numbers, and `metrics`, by name a list with a number for each of them.
        """
        return {}

    def fit_details(self, model: nn.Module, splits: Mapping[str, Batch]) -> dict[str, Any]:
        """Further results that need more than the split evaluated, such as those of a fit; among the `details`."""
        return {}

    def shown(self, details: Mapping[str, Any]) -> Mapping[str, str]:
        """Those of the details that the table at the end of a run shows, by name."""
        return {}

    def table(self, batch: Batch, rows: Batch, names: Sequence[str]) -> Mapping[str, np.ndarray] | None:
        """What `node-predict` writes, equally many rows of each column; None: the rows as they are, one a sample.

        `names` are what the samples of the batch are called; a single one may be called nothing.
        """
        return None

    def samples(self, model: nn.Module, count: int, generator: torch.Generator, label: str | None = None) -> Batch:
        """New samples by name, one row each, in the user's units: the rows `sample`, and perhaps others.

        `model` is in evaluation mode, without gradients; `label` is the name of a class to draw them from.

        Raises:
            ValueError: the task has none, or not of such a class.
        """
        raise ValueError(f"samples={count}: the task of this run draws no samples, leave it out")

    def audit_notes(self, model: nn.Module, batch: Batch) -> Sequence[str]:
        """What an audit says of this task beside the gradients of its loss, a line each."""
        return ()

    def extended(self, batch: Batch, until: float | str) -> Batch:
        """The batch with all of it shown to the model, and with further times up to `until`, in the user's unit.

        Raises:
            ValueError: there are no times, or it cannot be extended until then.
        """
        raise ValueError(f"until={until}: the task of this run has no times to go on in, leave it out")

    def figures(self, model: nn.Module, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """Figures of the results of a whole split, by name; `names` are what its samples are called, if anything."""
        return {}

    def prediction_figures(self, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """Figures of predictions for new data that hold what `predict` reads and perhaps nothing else, by name."""
        return {}

    def sample_figures(self, batch: Batch) -> Mapping[str, Figure]:
        """Figures of a batch of training data, by name."""
        return {}


def solved(batch: Batch, rows: Batch) -> tuple[Batch, Batch]:
    """The samples and rows without those whose solve failed."""
    if FAILED not in rows:
        return batch, rows
    return take(batch, ~rows[FAILED]), take(rows, ~rows[FAILED])
