"""Errors of a regression in closed form, in the units of the user."""

import math

import pytest
import torch

from node_cli.datasets.scaling import Scaling
from node_cli.figures import image_of
from node_cli.series import MASK, TARGET, TIMES, VALUES, LabelModel, Units
from node_cli.tasks.regression import Regression, _errors

MEAN, STD = (10.0, -1.0), (2.0, 0.5)
SCALED = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, -1.0]])
ERRORS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])  # of scaled predictions
UNITS = Units((0.0,), (1.0,), False, 0.0, 1.0)


class Says(torch.nn.Module):
    """Whatever is asked, it gives the inputs."""

    def forward(self, inputs):
        return inputs


def task(**keys):
    return Regression(("a", "b"), Scaling(MEAN, STD), kinetic=0.0, **keys)


def test_errors_are_in_the_units_of_the_targets():
    batch, made = {"inputs": SCALED + ERRORS, "targets": SCALED}, task()
    loss = made.loss(Says(), batch, 0.0)
    assert loss.total.item() / loss.weight.item() == pytest.approx(0.5 * ERRORS.square().mean().item())
    rows = made.predict(Says(), batch, torch.Generator())
    assert rows["observed"].tolist() == [[10.0, -0.5], [12.0, -1.0], [14.0, -1.5]]
    assert rows["prediction"][0].tolist() == [12.0, -0.5]
    metrics = made.metrics(batch, rows)
    assert metrics["loss"] == pytest.approx(loss.total.item() / 3)
    assert metrics["rmse"] == pytest.approx((2 * math.sqrt(2 / 3) + 0.5 * math.sqrt(4 / 3)) / 2)
    assert metrics["mae"] == pytest.approx((2 * 2 / 3 + 0.5 * 2 / 3) / 2)
    assert metrics["r2"] == pytest.approx((0 + (1 - 2)) / 2)  # of the first as good as the mean, of the second worse
    details = made.details(Says(), batch, rows)
    assert details["per_target"]["b"]["mae"] == pytest.approx(1 / 3)
    assert details["mean_baseline"]["a"]["rmse"] == pytest.approx(math.sqrt((0 + 4 + 16) / 3))
    assert made.shown(details)["RMSE of a"] == "1.633, of the training mean 2.582"
    assert image_of(made.figures(Says(), batch, rows)["predictions"]).shape[2] == 3
    assert set(made.predict(Says(), {"inputs": SCALED}, torch.Generator())) == {"prediction"}


def test_the_variance_that_is_explained_is_that_of_the_targets():
    found, targets = torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([[0.0], [3.0], [9.0]])
    explained = 1 - 2 / (targets - targets.mean()).square().sum().item()
    assert _errors(found - targets, targets)["r2"] == pytest.approx([explained])
    assert math.isnan(_errors(found - 3, torch.full((3, 1), 3.0))["r2"][0])


def test_a_sample_without_a_prediction_is_left_out_of_the_errors():
    batch, made = {"inputs": SCALED, "targets": SCALED}, task()
    rows = {**made.predict(Says(), batch, torch.Generator()), "failed": torch.tensor([True, False, False])}
    rows["prediction"][0] = math.nan
    assert made.metrics(batch, rows)["rmse"] == 0.0


def test_a_model_of_series_sees_all_that_was_observed_and_nothing_else():
    class Sees(LabelModel):
        def forward(self, batch):
            assert set(batch) == {TIMES, VALUES, MASK}
            return batch[VALUES].sum(1)

    seen, hidden = torch.tensor([True, False, False]), torch.tensor([False, True, False])
    batch = {
        TIMES: torch.arange(3.0).double()[None],
        VALUES: torch.tensor([[[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]]),
        MASK: seen[None, :, None].expand(1, 3, 2),
        TARGET: hidden[None, :, None].expand(1, 3, 2),
        "targets": torch.zeros(1, 2),
    }
    made = task(units=UNITS)
    assert made.model_type is LabelModel
    assert made.predict(Sees(), batch, torch.Generator())["prediction"].tolist() == [[16.0, 0.5]]
    with_drop = {**batch, "dropped": hidden[None, :, None]}
    assert made.predict(Sees(), with_drop, torch.Generator())["prediction"].tolist() == [[12.0, -0.5]]
    assert set(made.unused(torch.nn.Linear(1, 1))) == {"task.kinetic", "dataset.context"}
