import math

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import nn

from node_cli.tasks.base import Evaluation
from node_cli.tasks.classification import Classification, LabelledBatch

NAMES = ("a", "b", "c")
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 4.0, 1.0], [5.0, 0.0, 0.0], [0.0, 1.0, 0.5]])
TARGETS = torch.tensor([0, 2, 0, 0, 1])  # the third is predicted as "b"


def task(label_smoothing=0.0, names=NAMES):
    return Classification(names, label_smoothing=label_smoothing)


def batches(*sizes):
    pairs = zip(LOGITS.split(list(sizes)), TARGETS.split(list(sizes)), strict=True)
    return [LabelledBatch(*pair) for pair in pairs]


def judged(predictions):
    return Evaluation({}, torch.tensor(predictions))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_the_loss_in_closed_form(smoothing):
    """(1 - s) x -log p(target) + s x the mean over all classes of -log p (Szegedy et al. 2016)."""
    loss, metrics = task(smoothing).loss(nn.Identity(), LabelledBatch(LOGITS, TARGETS))
    expected = 0.0
    for logits, target in zip(LOGITS.tolist(), TARGETS.tolist(), strict=True):
        minus_log_p = [math.log(sum(map(math.exp, logits))) - logit for logit in logits]
        expected += ((1 - smoothing) * minus_log_p[target] + smoothing * sum(minus_log_p) / 3) / len(TARGETS)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert metrics["accuracy"].item() == pytest.approx(0.8)


def test_the_loss_has_a_graph_and_the_metrics_have_none():
    model = nn.Linear(3, 3)
    loss, metrics = task().loss(model, LabelledBatch(LOGITS, TARGETS))
    assert loss.requires_grad
    assert not any(metric.requires_grad for metric in metrics.values())


def test_the_loss_of_bfloat16_logits_is_float32():
    loss, _ = task().loss(nn.Identity(), LabelledBatch(LOGITS.bfloat16(), TARGETS))
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("sizes", [(5,), (2, 2, 1), (1, 1, 1, 1, 1)])
def test_an_evaluation_is_of_the_whole_split_however_it_is_batched(sizes):
    evaluation = task(label_smoothing=0.5).evaluate(nn.Identity(), batches(*sizes))
    plain_loss, _ = task().loss(nn.Identity(), LabelledBatch(LOGITS, TARGETS))
    assert evaluation.metrics == pytest.approx({"loss": plain_loss.item(), "accuracy": 0.8, "error": 0.2})
    assert evaluation.outputs.tolist() == [0, 2, 1, 0, 1]


def test_figures_of_each_class_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 3, generator=generator)
    targets = torch.randint(3, (200,), generator=generator)
    evaluation = task().evaluate(nn.Identity(), [LabelledBatch(logits, targets)])
    precision, recall, _, support = precision_recall_fscore_support(targets, logits.argmax(1))
    expected = {
        name: {"precision": precision[i], "recall": recall[i], "samples": support[i]} for i, name in enumerate(NAMES)
    }
    per_class = evaluation.details["per_class"]
    assert list(per_class) == list(NAMES)
    assert all(per_class[name] == pytest.approx(expected[name]) for name in NAMES)


def test_a_class_that_never_occurs_has_no_figures():
    evaluation = task(names=(*NAMES, "d")).evaluate(nn.Identity(), [LabelledBatch(LOGITS.new_zeros(2, 4), TARGETS[:2])])
    assert evaluation.details["per_class"] == {
        "a": {"precision": 0.5, "recall": 1.0, "samples": 1},
        "b": {"precision": None, "recall": None, "samples": 0},
        "c": {"precision": None, "recall": 0.0, "samples": 1},
        "d": {"precision": None, "recall": None, "samples": 0},
    }


def test_accuracy_ranks_first_and_the_smaller_loss_between_equals():
    rank = task().rank
    good, better, best = (
        {"accuracy": 0.5, "loss": 1.0},
        {"accuracy": 0.5, "loss": 0.9},
        {"accuracy": 0.6, "loss": 2.0},
    )
    assert rank(good) < rank(better) < rank(best)


def test_agreement_is_the_share_of_equal_predictions():
    assert task().agreement(judged([0, 1, 2, 2]), judged([0, 1, 1, 2])) == 0.75
    assert task().agreement(judged([0, 1]), judged([0, 1])) == 1.0


@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (40, 2)])
def test_pictures_of_images_and_of_points(shape):
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(40) % 3
    pairs = [LabelledBatch(*pair) for pair in zip(inputs.split(30), targets.split(30), strict=True)]
    evaluation = Evaluation({}, torch.zeros(40, dtype=torch.long))
    pictures = task().sample_pictures(pairs[0]) | task().result_pictures(pairs, evaluation)
    assert set(pictures) == {"inputs", "confusion_matrix", "wrong_predictions"}
    for picture in pictures.values():
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert picture.dtype == np.uint8


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_a_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=f"^label_smoothing must be 0 or more and below 1, got {smoothing}$"):
        task(smoothing)
