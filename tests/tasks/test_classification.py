import math

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import nn

from node_cli.datasets.dataset import Dataset
from node_cli.figures import image_of
from node_cli.tasks.classification import Classification
from node_cli.training.evaluation import evaluate, rank_of

NAMES = ("a", "b", "c")
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 4.0, 1.0], [5.0, 0.0, 0.0], [0.0, 1.0, 0.5]])
TARGETS = torch.tensor([0, 2, 0, 0, 1])  # the third is predicted as "b"
BATCH = {"inputs": LOGITS, "targets": TARGETS}


class Same(nn.Module):
    """Passes logits on."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))

    def forward(self, logits):
        return logits


def task(label_smoothing=0.0, names=NAMES, **settings):
    return Classification(names, label_smoothing=label_smoothing, **settings)


def evaluated(task, batch, batch_size=100):
    return evaluate(Same(), task, Dataset({"val": batch}), "val", batch_size, "float32")


def minus_log_p(logits):
    return [math.log(sum(map(math.exp, logits))) - logit for logit in logits]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_loss_in_closed_form(smoothing):
    """(1 - s) x -log p(target) + s x the mean over all classes of -log p (Szegedy et al. 2016), summed over samples."""
    loss = task(smoothing).loss(Same(), BATCH, 0.0)
    expected = 0.0
    for logits, target in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        expected += (1 - smoothing) * minus_log_p(logits)[target] + smoothing * sum(minus_log_p(logits)) / 3
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)
    assert loss.weight.item() == 5
    assert loss.metrics["accuracy"].item() == 4


@pytest.mark.parametrize(
    ("asked", "weights"), [([1.0, 0.5, 2.0], [1.0, 0.5, 2.0]), ("balanced", [20 / (3 * n) for n in (10, 4, 6)])]
)
def test_class_weights_multiply_the_loss_of_their_samples_in_training_alone(asked, weights):
    weighted = task(class_weights=asked, class_counts=(10, 4, 6))
    losses = [minus_log_p(logits)[target] for logits, target in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True)]
    expected = sum(weights[target] * loss for target, loss in zip(TARGETS.tolist(), losses, strict=True))
    loss = weighted.loss(Same(), BATCH, 0.0)
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)
    assert (loss.weight.item(), loss.metrics["accuracy"].item()) == (5, 4)
    assert evaluated(weighted, BATCH).metrics == evaluated(task(), BATCH).metrics


@pytest.mark.parametrize(
    ("asked", "counts", "message"),
    [
        ([1.0, 2.0], None, "class_weights must be a positive number for each of 3 classes, got [1.0, 2.0]"),
        ([1.0, 2.0, 0.0], None, "class_weights must be a positive number for each of 3 classes, got [1.0, 2.0, 0.0]"),
        (
            "balanced",
            None,
            "class_weights=balanced needs training samples of every class, counted: give a list instead",
        ),
        (
            "balanced",
            (3, 0, 1),
            "class_weights=balanced needs training samples of every class, counted: give a list inst",
        ),
    ],
)
def test_class_weights_that_cannot_be_are_refused(asked, counts, message):
    with pytest.raises(ValueError) as refusal:
        task(class_weights=asked, class_counts=counts)
    assert str(refusal.value).startswith(message)


def test_the_loss_has_a_graph_and_the_metrics_have_none():
    loss = task().loss(nn.Linear(3, 3), BATCH, 0.0)
    assert loss.total.requires_grad
    assert not any(value.requires_grad for value in (loss.weight, *loss.metrics.values()))


def test_the_loss_of_bfloat16_logits_is_float32():
    assert task().loss(Same(), {**BATCH, "inputs": LOGITS.bfloat16()}, 0.0).total.dtype == torch.float32


@pytest.mark.parametrize("batch_size", [5, 2, 1])
def test_an_evaluation_is_of_the_whole_split_however_it_is_batched(batch_size):
    evaluation = evaluated(task(label_smoothing=0.5), BATCH, batch_size)
    plain = task().loss(Same(), BATCH, 0.0)
    mean = (plain.total / plain.weight).item()
    assert evaluation.metrics == pytest.approx({"loss": mean, "accuracy": 0.8, "error": 0.2})
    assert evaluation.rows["class"].tolist() == [0, 2, 1, 0, 1]
    torch.testing.assert_close(evaluation.rows["probability"].sum(1), torch.ones(5))


def test_results_of_each_class_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 3, generator=generator)
    targets = torch.randint(3, (200,), generator=generator)
    per_class = evaluated(task(), {"inputs": logits, "targets": targets}).details["per_class"]
    precision, recall, _, support = precision_recall_fscore_support(targets, logits.argmax(1))
    expected = {
        name: {"precision": precision[i], "recall": recall[i], "samples": support[i]} for i, name in enumerate(NAMES)
    }
    assert list(per_class) == list(NAMES)
    assert all(per_class[name] == pytest.approx(expected[name]) for name in NAMES)


def test_a_class_that_never_occurs_has_no_results():
    batch = {"inputs": LOGITS.new_zeros(2, 4), "targets": TARGETS[:2]}
    assert evaluated(task(names=(*NAMES, "d")), batch).details["per_class"] == {
        "a": {"precision": 0.5, "recall": 1.0, "samples": 1},
        "b": {"precision": None, "recall": None, "samples": 0},
        "c": {"precision": None, "recall": 0.0, "samples": 1},
        "d": {"precision": None, "recall": None, "samples": 0},
    }


def test_samples_that_fail_count_as_wrong_and_are_left_out_of_the_loss():
    failed = torch.tensor([True, False, True, False, False])
    whole = task().predict(Same(), BATCH, torch.Generator())
    rows = {name: torch.where(failed.view(-1, *[1] * (t.dim() - 1)), -1, t) for name, t in whole.items()}
    rows["failed"] = failed
    left = {name: tensor[~failed] for name, tensor in BATCH.items()}
    plain = task().loss(Same(), left, 0.0)
    expected = {"loss": (plain.total / 3).item(), "accuracy": 0.6, "error": 0.4}
    assert task().metrics(BATCH, rows) == pytest.approx(expected)
    assert task().details(nn.Identity(), BATCH, rows)["per_class"] == {
        "a": {"precision": 1.0, "recall": 1 / 3, "samples": 3},
        "b": {"precision": 1.0, "recall": 1.0, "samples": 1},
        "c": {"precision": 1.0, "recall": 1.0, "samples": 1},
    }


def test_the_smaller_error_is_better_and_the_smaller_loss_between_equals():
    good, better, best = (
        rank_of(task(), {"accuracy": 1 - error, "error": error, "loss": loss})
        for error, loss in ((0.5, 1.0), (0.5, 0.9), (0.4, 2.0))
    )
    assert good < better < best


@pytest.mark.parametrize("prediction", [0, -1])
@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (40, 2)])
def test_figures_of_images_and_of_points(shape, prediction):
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    batch, rows = {"inputs": inputs, "targets": torch.arange(40) % 3}, {"class": torch.full((40,), prediction)}
    with torch.no_grad():
        figures = {**task().sample_figures(batch), **task().figures(nn.Linear(2, 3), batch, rows)}
    assert set(figures) - {"plane"} == {"inputs", "confusion_matrix", "wrong_predictions"}
    assert ("plane" in figures) == (shape == (40, 2))
    of_new_data = task().prediction_figures({"inputs": inputs}, rows)
    figures |= of_new_data
    assert set(of_new_data) == {"predictions"}
    for figure in figures.values():
        image = image_of(figure)
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.dtype == np.uint8


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_a_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=f"^label_smoothing must be 0 or more and below 1, got {smoothing}$"):
        task(smoothing)
