"""Computed series against closed forms, what they conserve, and smaller steps."""

import math

import pytest
import torch
from shipped import dataset_keys

from node_cli.datasets.series import generated

EXACT = {"noise": 0.0, "val": 0, "test": 0, "normalize": False, "time_scale": 1.0, "log": False}
NAMES = ["spiral", "lotka_volterra", "pendulum", "spring", "two_body", "lorenz", "van_der_pol"]


def made(name, **changes):
    """Times `(n, T)` and values `(n, T, C)` of the shipped config."""
    return getattr(generated, name)(**{**dataset_keys(name), "window": None, **EXACT, **changes})


def table(name, **changes):
    batch = made(name, **changes).splits["train"]
    return batch["times"], batch["values"].double()


@pytest.mark.parametrize("irregular", [False, True])
def test_the_spring_swings_as_its_closed_form(irregular):
    times, values = table("spring", irregular=irregular, num_series=9, t1=10.0)
    q, p = values.unbind(2)
    exact = q[:, :1] * (2 * times).cos() + p[:, :1] * (2 * times).sin()
    torch.testing.assert_close(q, exact, rtol=0, atol=1e-6)
    assert len(times.unique(dim=0)) == (len(times) if irregular else 1)
    assert (times.diff() > 0).all()


def energy_of_two_bodies(values):
    q, p = values[..., :4], values[..., 4:]
    return p.square().sum(-1) / 2 - 1 / (q[..., :2] - q[..., 2:]).norm(dim=-1)


CONSERVED = {
    "pendulum": lambda values: 3 * (1 - values[..., 0].cos()) + values[..., 1].square(),
    "two_body": energy_of_two_bodies,
    "lotka_volterra": lambda values: values.sum(-1) - 3 * values[..., 0].log() - 1.5 * values[..., 1].log(),
}


@pytest.mark.parametrize("name", CONSERVED)
def test_what_a_system_conserves_stays(name):
    energy = CONSERVED[name](table(name)[1])
    assert (energy - energy[:, :1]).abs().max() < 3e-6  # values are kept in float32
    assert energy[:, 0].std() > 1e-3


@pytest.mark.parametrize("name", ["spiral", "lorenz", "van_der_pol"])
def test_smaller_steps_change_nothing(name, monkeypatch):
    changes = {"t1": 3.0, "num_times": 40}
    values = table(name, **changes)[1]
    shown = generated.System

    def finer(*arguments, **keys):
        return shown(*arguments, **{**keys, "max_step": keys["max_step"] / 3})

    function = getattr(generated, name)
    monkeypatch.setitem(function.__wrapped__.__wrapped__.__globals__, "System", finer)
    torch.testing.assert_close(table(name, **changes)[1], values, rtol=0, atol=1e-6)


def test_the_spiral_is_that_of_the_demo():
    times, values = table("spiral")
    assert times.shape == (1, 1000)
    assert (times[0, -1].item(), values[0, 0].tolist()) == (25.0, [2.0, 0.0])
    y = values[0]
    slopes = (y[2:] - y[:-2]) / (times[0, 2:] - times[0, :-2])[:, None]
    truth = y[1:-1] ** 3 @ torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)
    assert (slopes - truth).abs().mean() < 0.01


def test_the_springs_start_as_far_from_rest_as_in_the_paper():
    for name, low, high in (("spring", 0.1, 1.0), ("pendulum", 1.3, 2.3)):
        radii = table(name)[1][:, 0].norm(dim=1)
        assert low <= radii.min() < radii.max() <= high
        splits = made(name, val=5, test=25).splits
        assert {split: tuple(batch["values"].shape) for split, batch in splits.items()} == {
            "train": (25, 45, 2),
            "val": (5, 45, 2),
            "test": (25, 45, 2),
        }


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_fixes_everything_and_noise_has_its_std(name):
    small = {"num_series": 40, "num_times": 20, "t1": 1.0}
    clean, first, again, other = (
        table(name, **small, **more)[1]
        for more in ({}, {"noise": 0.02}, {"noise": 0.02}, {"noise": 0.02, "data_seed": 1})
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noise = first.log() - clean.log() if name == "lotka_volterra" else first - clean
    assert noise.std().item() == pytest.approx(0.02, rel=0.1)
    assert math.isclose(noise.mean().item(), 0, abs_tol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_series": 0}, "num_series must be at least 1, got 0"),
        ({"num_times": 1}, "num_times must be at least 2, got 1"),
        ({"num_times": 10**9}, "num_times must be at most 181,818, got 1,000,000,000"),
        ({"noise": -0.1}, "noise must be at least 0, got -0.1"),
        ({"t1": 0.0}, "t1 must be positive, got 0.0"),
        ({"data_seed": -1}, "data_seed must be at least 0, got -1"),
        ({"log": True}, "dataset.log=true needs values above 0: series 1, row "),
    ],
)
def test_each_mistake_is_one_line(change, message):
    with pytest.raises(ValueError) as error:
        made("pendulum", **change)
    assert str(error.value).startswith(message)
