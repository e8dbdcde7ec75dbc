"""Classification: cross entropy, accuracy, figures for each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from node_cli.tasks.base import Evaluation
from node_cli.tasks.pictures import NO_PREDICTION, confusion_matrix, sample_inputs, wrong_predictions
from node_cli.tasks.solved_samples import SolvedSamples

NUM_SAMPLES_SHOWN = 32


class LabelledBatch(NamedTuple):
    """Inputs `(batch, ...)` and class numbers `(batch,)` int64."""

    inputs: Tensor
    targets: Tensor


class Classification:
    """A model whose outputs `(batch, classes)` are logits. Metrics: loss, accuracy and error, both 0 to 1."""

    metric_names = ("loss", "accuracy", "error")

    def __init__(self, class_names: tuple[str, ...], *, label_smoothing: float) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be 0 or more and below 1, got {label_smoothing}")
        self.class_names = class_names
        self.label_smoothing = label_smoothing

    def loss(self, model: nn.Module, batch: LabelledBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy with label smoothing; metric: accuracy of the batch."""
        logits = model(batch.inputs)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)
        return loss, {"accuracy": (logits.detach().argmax(1) == batch.targets).float().mean()}

    def evaluate(self, model: nn.Module, batches: Iterable[LabelledBatch], *, skip_failed: bool) -> Evaluation:
        """Loss without smoothing. Details: precision, recall and number of samples of each class.

        A sample without a prediction (`NO_PREDICTION` among the outputs) counts as wrong, and is left out of the loss.
        """
        samples, targets = SolvedSamples(model, skip_failed=skip_failed), []
        for batch in batches:
            samples.add(batch.inputs)
            targets.append(batch.targets)
        logits, all_targets = samples.outputs.float(), torch.cat(targets)
        solved = samples.solved.to(all_targets.device)
        predictions = torch.full_like(all_targets, NO_PREDICTION)
        predictions[solved] = logits.argmax(1)
        accuracy = (predictions == all_targets).double().mean().item()
        loss = F.cross_entropy(logits, all_targets[solved]).item()
        metrics = {"loss": loss, "accuracy": accuracy, "error": 1 - accuracy}
        if skip_failed:
            metrics["failed"] = (~solved).sum().item()
        return Evaluation(metrics, predictions.cpu(), {"per_class": self._per_class(predictions, all_targets)})

    def rank(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Accuracy first; between equals the smaller loss."""
        return metrics["accuracy"], -metrics["loss"]

    def agreement(self, one: Evaluation, other: Evaluation) -> float:
        """Share of samples that are given the same class; a sample without a prediction is given none."""
        same = (one.outputs == other.outputs) & (one.outputs != NO_PREDICTION)
        return same.double().mean().item()

    def sample_pictures(self, batch: LabelledBatch) -> dict[str, np.ndarray]:
        """Some inputs with their classes."""
        inputs, targets = batch.inputs[:NUM_SAMPLES_SHOWN], batch.targets[:NUM_SAMPLES_SHOWN]
        return {"inputs": sample_inputs(inputs.cpu().numpy(), targets.cpu().numpy(), self.class_names)}

    def result_pictures(self, batches: Iterable[LabelledBatch], evaluation: Evaluation) -> dict[str, np.ndarray]:
        """The confusion matrix, and inputs that were given a wrong class."""
        pairs = [(batch.inputs.cpu().numpy(), batch.targets.cpu().numpy()) for batch in batches]
        inputs, targets = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        predictions = evaluation.outputs.numpy()
        return {
            "confusion_matrix": confusion_matrix(targets, predictions, self.class_names),
            "wrong_predictions": wrong_predictions(inputs, targets, predictions, self.class_names),
        }

    def _per_class(self, predictions: Tensor, targets: Tensor) -> dict[str, dict[str, Any]]:
        count = len(self.class_names)
        hits = torch.bincount(targets[predictions == targets], minlength=count).tolist()
        given = torch.bincount(predictions[predictions != NO_PREDICTION], minlength=count).tolist()
        true = torch.bincount(targets, minlength=count).tolist()
        return {
            name: {
                "precision": hits[i] / given[i] if given[i] else None,
                "recall": hits[i] / true[i] if true[i] else None,
                "samples": true[i],
            }
            for i, name in enumerate(self.class_names)
        }
