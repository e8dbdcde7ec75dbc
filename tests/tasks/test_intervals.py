import math

import pytest
import torch
from lines import Line
from torch import nn

from node_cli.tasks.intervals import parameter_intervals


def test_of_a_linear_model_they_are_those_of_linear_regression():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 2, generator=generator)
    noise = 0.3 * torch.randn(50, generator=generator)
    y = x @ torch.tensor([1.0, -2.0]) + noise
    best = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    model = Line(best.tolist())
    found = parameter_intervals(model, lambda: x @ model.slope - y)
    variance = (x @ best - y).square().sum() / 48
    std = (variance * torch.linalg.inv(x.T @ x).diagonal()).sqrt().tolist()
    for channel, expected in enumerate(std):
        value = found[f"slope_{channel}"]
        assert value["std"] == pytest.approx(expected, rel=1e-4)
        assert value["low"] == pytest.approx(value["value"] - 1.96 * expected, rel=1e-4)
        assert value["is_identified"]


def test_a_parameter_that_no_residual_depends_on_has_no_interval():
    model = Line([1.0, 2.0])
    x = torch.linspace(0, 1, 9)
    found = parameter_intervals(model, lambda: x * model.slope[0] - x - 0.01 * x**2)
    assert found["slope_0"]["is_identified"]
    assert found["slope_1"] == {"value": 2.0, "std": None, "low": None, "high": None, "is_identified": False}


def test_two_that_only_their_sum_is_known_of_have_none():
    model = Line([1.0, 2.0])
    x = torch.linspace(0, 1, 9)
    found = parameter_intervals(model, lambda: x * model.slope.sum() - 3 * x - 0.01 * x**2)
    assert [value["std"] for value in found.values()] == [None, None]


def test_a_std_larger_than_its_value_is_not_identified():
    model = Line([0.01, 1.0])
    x = torch.linspace(0, 1, 12)
    found = parameter_intervals(model, lambda: torch.cat([x * model.slope[0] + (9 * x).sin(), model.slope[1] * x - x]))
    assert not found["slope_0"]["is_identified"]
    assert math.isfinite(found["slope_0"]["std"])


def test_large_models_tell_their_values_alone():
    model = Line([1.0, 2.0])
    model.large = nn.Linear(20, 20)
    assert parameter_intervals(model, lambda: torch.zeros(0)) == {"slope_0": {"value": 1.0}, "slope_1": {"value": 2.0}}


def test_what_depends_on_no_parameter_is_a_value_alone():
    class Pruned(Line):
        def named_values(self):
            return {"kept": self.slope[0], "pruned": 0 * self.slope[1]}

    model, x = Pruned([1.0, 2.0]), torch.linspace(0, 1, 9)
    found = parameter_intervals(model, lambda: x * model.slope[0] - x - 0.01 * x**2)
    assert found["pruned"] == {"value": 0.0}
    assert found["kept"]["is_identified"]
