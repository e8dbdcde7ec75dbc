"""Classification: cross entropy, accuracy, and the results of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from node_cli.batch import Batch, take
from node_cli.series import Units
from node_cli.tasks.classification_figures import (
    NO_PREDICTION,
    confusion_matrix,
    drawn_of,
    sample_inputs,
    wrong_predictions,
)
from node_cli.tasks.kinetic import Kinetic
from node_cli.tasks.labels import inputs_of, model_type_of, outputs, unused_with
from node_cli.tasks.plane_figures import plane
from node_cli.tasks.task import Loss, Task, solved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_SAMPLES_SHOWN = 32


class Classification(Task):
    """A model that maps the `inputs` of a batch to logits `(batch, classes)`; `targets` `(batch,)` are class indices.

    Of series it sees all that was observed and not dropped, and must be a `LabelModel`.

    Args:
        class_names: a name for each class.
        class_counts: how many training samples each class has; what `class_weights="balanced"` needs.
        units: those of series; None: the samples are no series.
        label_smoothing: the fraction of a target's probability that is spread evenly over all classes.
        class_weights: what the loss of a sample is multiplied by, for each class; "balanced": in inverse proportion to
            the class's training samples, on average 1. In training alone: metrics have no weights.
        kinetic: weight of the squared slope of ODE blocks in the loss, see `Kinetic`.

    Raises:
        ValueError: a setting out of range.
    """

    metric_names = ("loss", "accuracy", "error")
    objective = ("error", "min")
    differences = ("accuracy", "error")
    hidden_rows = ("logit",)

    def __init__(
        self,
        class_names: tuple[str, ...],
        class_counts: tuple[int, ...] | None = None,
        units: Units | None = None,
        *,
        label_smoothing: float,
        class_weights: Literal["balanced"] | list[float] | None = None,
        kinetic: float = 0.0,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be 0 or more and below 1, got {label_smoothing}")
        self.class_names = class_names
        self.inputs, self.model_type = inputs_of(units), model_type_of(units)
        self._unused = unused_with(units)
        self.label_smoothing = label_smoothing
        self.kinetic = Kinetic(kinetic)
        self.offers = {"num_outputs": len(class_names)}
        self.row_names = dict.fromkeys(("class", "probability", "targets"), class_names)
        self.class_weights = _class_weights(class_weights, class_names, class_counts)

    def check(self, model: nn.Module, splits: Mapping[str, Batch]) -> None:
        """See `Task.check`."""
        self.kinetic.check(model)

    def unused(self, model: nn.Module) -> Mapping[str, str]:
        """See `Task.unused`."""
        return {**self.kinetic.unused(model), **self._unused}

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> Loss:
        """Cross entropy with label smoothing, and the accuracy; both over samples."""
        with self.kinetic.of_solves(model) as energies:
            logits, targets = outputs(model, batch), batch["targets"]
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        total = F.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=self.label_smoothing)
        right = (logits.detach().argmax(1) == targets).to(total.dtype).sum()
        return self.kinetic.beside(Loss(total, total.new_tensor(len(targets)), {"accuracy": right}), energies)

    def predict(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """The class of each sample, and the probability and the logit of every class."""
        logits = outputs(model, batch)
        return {"class": logits.argmax(1), "probability": logits.softmax(1), "logit": logits}

    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """Accuracy and error, in which a sample without a prediction counts as wrong; the loss of the others.

        The loss is without label smoothing and class weights.
        """
        accuracy = (rows["class"] == batch["targets"]).double().mean().item()
        samples, predictions = solved(batch, rows)
        loss = F.cross_entropy(predictions["logit"], samples["targets"]).item()
        return {"loss": loss, "accuracy": accuracy, "error": 1 - accuracy}

    def details(self, model: nn.Module, batch: Batch, rows: Batch) -> dict[str, Any]:
        """Precision, recall and number of samples of each class."""
        targets, predictions, count = batch["targets"], rows["class"], len(self.class_names)
        hits = torch.bincount(targets[predictions == targets], minlength=count).tolist()
        given = torch.bincount(predictions[predictions != NO_PREDICTION], minlength=count).tolist()
        true = torch.bincount(targets, minlength=count).tolist()
        per_class = {
            name: {
                "precision": hits[i] / given[i] if given[i] else None,
                "recall": hits[i] / true[i] if true[i] else None,
                "samples": true[i],
            }
            for i, name in enumerate(self.class_names)
        }
        return {"per_class": per_class}

    def figures(self, model: nn.Module, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """The confusion matrix and inputs that were given a wrong class; of points in the plane what is made of it."""
        inputs = drawn_of(batch)
        targets, predictions = (tensor.numpy(force=True) for tensor in (batch["targets"], rows["class"]))
        figures = {
            "confusion_matrix": confusion_matrix(targets, predictions, self.class_names),
            "wrong_predictions": wrong_predictions(inputs, targets, predictions, self.class_names),
        }
        if "inputs" in batch and batch["inputs"].shape[1:] == (2,):
            figures["plane"] = plane(model, batch["inputs"], batch["targets"], self.class_names)
        return figures

    def prediction_figures(self, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """Some inputs with the classes that they were given."""
        batch, rows = solved(batch, rows)
        predictions = rows["class"].numpy(force=True)
        return {"predictions": sample_inputs(drawn_of(batch), predictions, self.class_names, "predictions")}

    def sample_figures(self, batch: Batch) -> Mapping[str, Figure]:
        """Some inputs with their classes."""
        shown = take(batch, slice(NUM_SAMPLES_SHOWN))
        return {"inputs": sample_inputs(drawn_of(shown), shown["targets"].numpy(force=True), self.class_names)}


def _class_weights(
    asked: Literal["balanced"] | list[float] | None, class_names: Sequence[str], counts: Sequence[int] | None
) -> list[float] | None:
    if isinstance(asked, list):
        if len(asked) != len(class_names) or not all(0 < weight < float("inf") for weight in asked):
            raise ValueError(
                f"class_weights must be a positive number for each of {len(class_names)} classes, got {asked}"
            )
        return asked
    if asked == "balanced":
        if counts is None or not all(counts):
            raise ValueError(
                "class_weights=balanced needs training samples of every class, counted: give a list instead"
            )
        return [sum(counts) / (len(counts) * count) for count in counts]
    return None
