"""The real series that come with the package."""

import numpy as np
import pytest
import torch
from shipped import dataset_keys

from node_cli.datasets.series.storms import storms
from node_cli.datasets.series.tables import FILES, influenza, lynx_hare


def made(function, **changes):
    return function(**{**dataset_keys(function.__name__), **changes})


@pytest.mark.parametrize(("function", "sizes"), [(lynx_hare, (13, 16, 21)), (influenza, (7, 9, 14))])
def test_a_table_is_read_and_split_by_time(function, sizes):
    dataset = made(function)
    splits, offers = dataset.splits, dataset.offers
    assert tuple(split["times"].shape[1] for split in splits.values()) == sizes
    written = np.loadtxt(FILES / f"{function.__name__}.csv", delimiter=",", skiprows=1)
    test, units = splits["test"], offers["units"]
    np.testing.assert_allclose(units.times(test["times"])[0], written[:, 0], rtol=1e-12)
    np.testing.assert_allclose(units.values(test["values"])[0], written[:, 1:], rtol=1e-4, atol=1e-3)
    assert offers["time_unit"] == offers["time_name"] == {lynx_hare: "year", influenza: "day"}[function]


def test_the_lynx_is_learned_as_a_logarithm():
    offers = made(lynx_hare).offers
    assert (offers["channel_names"], offers["time_name"], offers["units"].is_log) == (("hare", "lynx"), "year", True)


def kilometres(place, other):
    """Great-circle distance of latitudes and longitudes `(..., 2)` in degrees."""
    (lat, lon), (lat2, lon2) = (torch.deg2rad(each).unbind(-1) for each in (place, other))
    chord = ((lat2 - lat) / 2).sin() ** 2 + lat.cos() * lat2.cos() * ((lon2 - lon) / 2).sin() ** 2
    return 2 * 6371 * chord.sqrt().asin()


def test_windows_of_storms_end_24_hours_after_what_is_seen():
    dataset = made(storms, context=2, val=0, test=0, normalize=False, time_scale=1.0)
    batch = dataset.splits["train"]
    times, values = batch["times"], batch["values"].double()
    torch.testing.assert_close(times[:, -1] - times[:, 1], torch.full((len(times),), 24.0).double())
    last = batch["target"][..., 0].sum(1) + 1
    end = values[torch.arange(len(last)), last]
    moved = (values[:, 1, :2] - values[:, 0, :2]) / (times[:, 1] - times[:, 0])[:, None]
    straight = kilometres(values[:, 1, :2] + 24 * moved, end[:, :2]).mean().item()
    still = kilometres(values[:, 1, :2], end[:, :2]).mean().item()
    wind = (values[:, 1, 2] - end[:, 2]).abs().mean().item()
    assert (len(times), round(straight), round(still), round(wind, 1)) == (15764, 221, 519, 12.0)


def test_storms_are_split_by_their_years():
    dataset = made(storms)
    years = np.load(FILES / "storms.npz")["years"]
    assert len({name.partition("/")[0] for name in dataset.sample_names["train"]}) <= int((years <= 2012).sum())
    assert dataset.offers["num_starts"] == 10681
    assert dataset.offers["position_channels"] == (0, 1)
    assert {name: len(split["start"]) for name, split in dataset.splits.items()} == {
        "train": 10681,
        "val": 1628,
        "test": 2215,
    }
    assert dataset.splits["train"]["start"].tolist() == list(range(10681))
    assert set(dataset.splits["test"]["start"].tolist()) == {-1}


def test_whole_storms_are_forecast_without_a_horizon():
    splits = made(storms, horizon=None).splits
    assert {name: len(split["start"]) for name, split in splits.items()} == {"train": 485, "val": 68, "test": 100}
    assert splits["test"]["mask"][..., 0].sum(1).unique().tolist() == [4]
    with pytest.raises(ValueError, match=r"window has no effect with dataset\.horizon=24: set one of them to null"):
        made(storms, window=6)
    with pytest.raises(ValueError, match="horizon must be positive, got 0"):
        made(storms, horizon=0)
    with pytest.raises(
        ValueError, match=r"dataset\.val=5, dataset\.test=43: there are 48 years, which leaves none for"
    ):
        made(storms, test=43)
    with pytest.raises(ValueError, match=r"dataset\.horizon=1e.06: no window of train ends so long after what is seen"):
        made(storms, horizon=1e6)
