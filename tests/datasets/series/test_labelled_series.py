"""The labelled series that come with the package, or are computed."""

import math

import numpy as np
import pytest
import torch
from shipped import dataset_keys

from node_cli.datasets.series.japanese_vowels import japanese_vowels
from node_cli.datasets.series.spirals import spirals
from node_cli.datasets.series.tables import FILES


def made(function, **changes):
    return function(**{**dataset_keys(function.__name__), **changes})


def test_vowels_keep_their_official_test_series():
    dataset = made(japanese_vowels)
    file = np.load(FILES / "japanese_vowels.npz")
    test, units = dataset.splits["test"], dataset.offers["units"]
    assert test["targets"].tolist() == file["test_labels"].tolist()
    assert (1 + (test["times"].diff(dim=1) > 0).sum(1)).tolist() == file["test_lengths"].tolist()
    observed = test["mask"] | test["target"]
    np.testing.assert_allclose(
        units.values(test["values"])[observed].reshape(-1, 12), file["test_values"], atol=1e-5, rtol=1e-4
    )
    counts = {name: split["targets"].bincount().tolist() for name, split in dataset.splits.items()}
    assert (counts["train"], counts["val"]) == ([24] * 9, [6] * 9)
    assert dataset.offers["class_counts"] == (24,) * 9
    assert sum(counts["test"]) == 370


def radius_and_angle(values, centre):
    x, y = values[..., 0] - centre, values[..., 1]
    return torch.hypot(x, y), torch.atan2(y, x)


def test_spirals_are_pieces_of_two_curves():
    dataset = made(spirals, normalize=False, num_series=80, val=10, test=20)
    test, clean = dataset.splits["test"], dataset.splits["test"]["truth"].double()
    assert test["times"].shape == (20, 200)
    assert dataset.splits["train"]["times"].shape == (50, 200)
    step = 6 * math.pi / 999
    torch.testing.assert_close(test["times"][3], step * torch.arange(200).double())
    for direction, centre in ((0, -5.0), (1, 5.0)):
        radius, angle = radius_and_angle(clean[test["targets"] == direction], centre)
        turned = (angle.diff(dim=1) + math.pi) % (2 * math.pi) - math.pi
        torch.testing.assert_close(turned, torch.full_like(turned, step if direction else -step), atol=1e-5, rtol=0)
        along = radius / 0.3 if direction else 6 * math.pi + 1 - 15 / radius  # the time on the curve
        assert (along.min() > 99.9 * step) & (along.max() < 799.1 * step)
    noise = (test["values"] - test["truth"])[test["mask"] | test["target"]]
    assert noise.std().item() == pytest.approx(0.3, rel=0.05)
    assert dataset.offers["class_counts"] == (25, 25)


def test_30_of_100_times_of_a_spiral_are_seen_and_100_are_beyond():
    dataset = made(spirals, drop=0.7, num_series=20, val=4, test=4)
    train = dataset.splits["train"]
    assert train["mask"].any(2).sum(1).tolist() == [30] * 12
    assert train["target"].any(2).sum(1).tolist() == [60] * 12
    assert not train["mask"][:, 100:].any()
    val = dataset.splits["val"]
    assert val["mask"].any(2).sum(1).tolist() == [30] * 4
    assert val["target"].any(2).sum(1).tolist() == [170] * 4
    assert val["target"][:, 100:].all()
    assert not val["mask"][:, 100:].any()


def test_without_what_is_beyond_training_has_one_half_of_a_spiral_and_is_where_others_go_on():
    dataset = made(spirals, train_beyond=False, drop=0.7, num_series=40, val=4, test=4, normalize=False, time_scale=1.0)
    train, step = dataset.splits["train"], 6 * math.pi / 999
    begins = {round(begin / step) for begin in train["times"][:, 0].tolist()}
    assert begins == {0, 100}
    torch.testing.assert_close(
        train["times"] - train["times"][:, :1], step * torch.arange(100.0).double().expand(32, -1)
    )
    assert train["mask"][:, 0].all()
    late = train["times"][:, 0] > 0
    assert sorted(late[train["targets"] == 0].tolist()) != [False] * 16
    assert sorted(late[train["targets"] == 1].tolist()) != [False] * 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_series": 1}, "num_series must be at least 2, got 1"),
        ({"num_times": 1}, "num_times must be at least 2, got 1"),
        ({"num_beyond": -1}, "num_beyond must be at least 0, got -1"),
        (
            {"num_beyond": 601},
            "num_beyond must be at most 600 with dataset.num_times=100, as a series ends within 800 points, got 601",
        ),
        ({"num_times": 500}, "num_times must be at most 400, got 500"),
        ({"noise": -1.0}, "noise must be at least 0, got -1.0"),
        ({"data_seed": -1}, "data_seed must be at least 0, got -1"),
        ({"num_series": 10**6}, "num_series must be at most 50,000, got 1,000,000"),
        ({"num_times": 50}, "context must be at most the 50 times that training has, got 100"),
    ],
)
def test_each_mistake_of_spirals_is_one_line(change, message):
    with pytest.raises(ValueError) as error:
        made(spirals, **change)
    assert str(error.value).startswith(message)
