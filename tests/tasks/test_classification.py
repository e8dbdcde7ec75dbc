import math

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support
from torch import nn

from node_cli.ode.solution import SolveError, Status
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
    evaluation = task(label_smoothing=0.5).evaluate(nn.Identity(), batches(*sizes), skip_failed=False)
    plain_loss, _ = task().loss(nn.Identity(), LabelledBatch(LOGITS, TARGETS))
    assert evaluation.metrics == pytest.approx({"loss": plain_loss.item(), "accuracy": 0.8, "error": 0.2})
    assert evaluation.outputs.tolist() == [0, 2, 1, 0, 1]


def test_figures_of_each_class_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 3, generator=generator)
    targets = torch.randint(3, (200,), generator=generator)
    evaluation = task().evaluate(nn.Identity(), [LabelledBatch(logits, targets)], skip_failed=False)
    precision, recall, _, support = precision_recall_fscore_support(targets, logits.argmax(1))
    expected = {
        name: {"precision": precision[i], "recall": recall[i], "samples": support[i]} for i, name in enumerate(NAMES)
    }
    per_class = evaluation.details["per_class"]
    assert list(per_class) == list(NAMES)
    assert all(per_class[name] == pytest.approx(expected[name]) for name in NAMES)


def test_a_class_that_never_occurs_has_no_figures():
    batch = LabelledBatch(LOGITS.new_zeros(2, 4), TARGETS[:2])
    evaluation = task(names=(*NAMES, "d")).evaluate(nn.Identity(), [batch], skip_failed=False)
    assert evaluation.details["per_class"] == {
        "a": {"precision": 0.5, "recall": 1.0, "samples": 1},
        "b": {"precision": None, "recall": None, "samples": 0},
        "c": {"precision": None, "recall": 0.0, "samples": 1},
        "d": {"precision": None, "recall": None, "samples": 0},
    }


class Fragile(nn.Module):
    """Passes logits on, or fails where one of them is NaN; keeps how large each batch was."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, logits):
        self.sizes.append(len(logits))
        if logits.isnan().any():
            raise SolveError(Status.TOO_MANY_STEPS, 0.5, 12)
        return logits


def spoilt(*rows):
    logits = LOGITS.clone()
    logits[list(rows)] = math.nan
    return [LabelledBatch(logits, TARGETS)]


def test_samples_that_fail_count_as_wrong_and_are_left_out_of_the_loss():
    evaluation = task().evaluate(Fragile(), spoilt(0, 2), skip_failed=True)
    solved = [1, 3, 4]
    loss, _ = task().loss(nn.Identity(), LabelledBatch(LOGITS[solved], TARGETS[solved]))
    assert evaluation.metrics == pytest.approx({"loss": loss.item(), "accuracy": 0.6, "error": 0.4, "failed": 2})
    assert evaluation.outputs.tolist() == [-1, 2, -1, 0, 1]
    assert evaluation.details["per_class"] == {
        "a": {"precision": 1.0, "recall": 1 / 3, "samples": 3},
        "b": {"precision": 1.0, "recall": 1.0, "samples": 1},
        "c": {"precision": 1.0, "recall": 1.0, "samples": 1},
    }


def test_a_batch_is_split_in_halves_until_the_failing_samples_stand_alone():
    model = Fragile()
    task().evaluate(model, spoilt(3), skip_failed=True)
    assert model.sizes == [5, 3, 2, 1, 1]


def test_nothing_failed_is_said_too_where_it_could_have():
    evaluation = task().evaluate(Fragile(), batches(2, 3), skip_failed=True)
    expected = task().evaluate(nn.Identity(), batches(5), skip_failed=False)
    assert evaluation.metrics == expected.metrics | {"failed": 0}
    assert torch.equal(evaluation.outputs, expected.outputs)


@pytest.mark.parametrize(
    ("rows", "skip_failed", "detail"),
    [([3], False, ""), (range(5), True, "and so for each of the 5 samples alone; ")],
)
def test_a_failure_that_cannot_be_skipped_is_raised(rows, skip_failed, detail):
    expected = f"the ODE solve failed at t = 0.5 after 12 evaluations: {detail}the steps reached max_steps"
    with pytest.raises(SolveError, match=f"^{expected}"):
        task().evaluate(Fragile(), spoilt(*rows), skip_failed=skip_failed)


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
    assert task().agreement(judged([0, 1, -1, -1]), judged([0, 1, -1, 2])) == 0.5  # without a prediction, no class


@pytest.mark.parametrize("prediction", [0, -1])
@pytest.mark.parametrize("shape", [(40, 1, 8, 8), (40, 2)])
def test_pictures_of_images_and_of_points(shape, prediction):
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(40) % 3
    pairs = [LabelledBatch(*pair) for pair in zip(inputs.split(30), targets.split(30), strict=True)]
    evaluation = judged([prediction] * 40)
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
