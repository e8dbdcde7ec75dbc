"""Splits, windows, masks and scaling of series, on tables small enough to see through."""

import math
from dataclasses import replace

import pytest
import torch

from node_cli.datasets.series.assembling import assemble
from node_cli.datasets.series.dropping import with_drops
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.spec import DataSpec
from node_cli.series import all_observed, visible

NAN = math.nan
KEYS = {
    "split": "time",
    "val": 2,
    "test": 3,
    "split_seed": 0,
    "window": None,
    "stride": 1,
    "context": 1,
    "log": False,
    "normalize": True,
    "time_scale": None,
    "drop": 0.0,
}


def series(name, length, start=0.0, **more):
    """Values 1, 2, ... and their squares, one time apart, the first of the second channel missing."""
    values = torch.arange(1.0, length + 1, dtype=torch.float64)
    table = torch.stack([values, values.square()], dim=1)
    table[0, 1] = NAN
    return Series(name, start + torch.arange(length, dtype=torch.float64), table, **more)


def raw(*lengths, **more):
    return RawSeries(tuple(series(f"s{i}", n, start=100.0 * i) for i, n in enumerate(lengths)), ("a", "b"), **more)


def made(data, **changes):
    return assemble(data, SeriesKeys(**{**KEYS, **changes}))


def rows(batch, name, sample=0, channel=0):
    """Which times a mask has."""
    return batch[name][sample, :, channel].nonzero().flatten().tolist()


def test_the_last_times_are_test_and_those_before_them_val():
    splits = made(raw(10)).splits
    shapes = {name: tuple(split["values"].shape) for name, split in splits.items()}
    assert shapes == {"train": (1, 5, 2), "val": (1, 7, 2), "test": (1, 10, 2)}
    seen = {name: (rows(split, "mask"), rows(split, "target")) for name, split in splits.items()}
    assert seen == {
        "train": ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        "val": ([0, 1, 2, 3, 4], [5, 6]),
        "test": ([0, 1, 2, 3, 4, 5, 6], [7, 8, 9]),
    }


def test_what_was_not_observed_is_masked_and_zero():
    split = made(raw(10)).splits["test"]
    assert rows(split, "mask", channel=1) == [1, 2, 3, 4, 5, 6]
    assert split["values"][0, 0, 1] == 0
    assert split["values"].isfinite().all()


def test_shorter_series_are_padded_with_their_last_time():
    split = made(raw(10, 7)).splits["test"]
    assert split["times"].dtype == torch.float64
    assert split["times"][1, 6:].unique().numel() == 1
    assert rows(split, "mask", 1) + rows(split, "target", 1) == [0, 1, 2, 3, 4, 5, 6]
    assert not split["values"][1, 7:].any()
    assert split["start"].tolist() == [0, 1]


@pytest.mark.parametrize("change", [{}, {"window": 3}, {"split": "series", "val": 1, "test": 1}])
def test_nothing_of_val_or_test_reaches_train(change):
    def controlled(each):
        return replace(each, controls=each.values[:, :1].sin(), statics=each.times[:1])

    data = RawSeries(tuple(map(controlled, raw(10, 12, 11, 14).series)), ("a", "b"), ("c",), ("s",))
    before = made(data, **change)
    starts = before.offers["units"].times(before.splits["train"]["times"][:, 0])
    changed = []
    for each in data.series:
        others = slice(-5, None)  # val and test
        if "split" in change:
            others = slice(0, 0) if (starts == each.times[0]).any() else slice(0, None)
        values, times, controls = each.values.clone(), each.times.clone(), each.controls.clone()
        values[others], controls[others] = values[others] * -9e3, controls[others] + 50
        times[others] += 7e5 if others.start else -7e5
        changed.append(replace(each, times=times, values=values, controls=controls, statics=times[:1]))
    after = made(replace(data, series=tuple(changed)), **change)
    assert len(before.splits["train"]["start"].unique()) == before.offers["num_starts"]
    assert after.offers == before.offers
    for name, tensor in before.splits["train"].items():
        assert torch.equal(after.splits["train"][name], tensor), name
    assert not torch.equal(after.splits["test"]["values"], before.splits["test"]["values"])


@pytest.mark.parametrize(
    ("change", "train", "val", "test"),
    [
        ({}, [0, 1], [0, 1], [0, 1]),  # each from its first time
        ({"window": 3, "stride": 3}, [0, 1, 2, 3, 4], [-1] * 2, [-1] * 4),
        ({"split": "series", "val": 1, "test": 0, "context": 2}, [0], [-1], [0]),
        ({"split": "series", "val": 1, "test": 0, "window": 5, "stride": 4}, [0, 1, 2], [-1] * 3, [0, 1, 2]),
    ],
)
def test_what_starts_where_a_training_sample_does_is_known_by_its_number(change, train, val, test):
    dataset = made(raw(13, 10), **change)
    starts = {name: split["start"].tolist() for name, split in dataset.splits.items()}
    assert starts == {"train": train, "val": val, "test": test}
    assert dataset.offers["num_starts"] == len(train)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_windows_lie_within_their_split(stride):
    dataset = made(raw(20), window=4, stride=stride, context=2, val=5, test=5, normalize=False, time_scale=1.0)
    for name, (start, stop) in {"train": (0, 10), "val": (10, 15), "test": (15, 20)}.items():
        split = dataset.splits[name]
        for sample in range(len(split["start"])):
            first = round(split["times"][sample, 0].item())
            targets = [first + row for row in rows(split, "target", sample)]
            assert rows(split, "mask", sample) == [0, 1]
            assert targets == [first + 2, first + 3]
            assert start <= targets[0]
            assert targets[-1] < stop
            assert name != "train" or first >= start
        assert split["times"].max() == stop - 1  # the last one ends with the split


def test_samples_are_called_by_their_series():
    assert made(raw(9), window=3).sample_names == {"train": ["1", "2"], "val": [""], "test": ["1", "2"]}
    names = ["s0/1", "s0/2", "s1"]
    assert made(raw(9, 8), window=3).sample_names["train"] == names
    assert made(raw(9)).sample_names == {"train": [""], "val": [""], "test": [""]}
    assert made(raw(9, 8)).sample_names["train"] == ["s0", "s1"]


def test_whole_series_are_split_by_the_seed():
    data = raw(5, 6, 7, 8, 9, 10)
    splits = made(data, split="series", val=0.2, test=2, context=2).splits
    assert {name: len(split["start"]) for name, split in splits.items()} == {"train": 3, "val": 1, "test": 2}
    assert splits["train"]["start"].tolist() == [0, 1, 2]
    assert splits["test"]["start"].tolist() == [-1, -1]
    assert rows(splits["val"], "mask") == [0, 1]
    assert rows(splits["val"], "target")[0] == 2
    others = made(data, split="series", val=0.2, test=2, context=2, split_seed=1).splits
    assert not torch.equal(others["train"]["times"], splits["train"]["times"])


def test_series_of_one_period_stay_together_and_the_last_ones_are_test():
    years = [2000, 2000, 2001, 2002, 2002, 2002]
    data = RawSeries(
        tuple(series(str(i), 6 + i, period=year) for i, year in enumerate(years)), ("a", "b"), period_name="years"
    )
    splits = made(data, split="series", val=1, test=1).splits
    assert {name: len(split["start"]) for name, split in splits.items()} == {"train": 2, "val": 1, "test": 3}


def test_a_split_of_none_is_the_training_data_again(caplog):
    dataset = made(raw(10), val=0, test=0)
    for name in ("val", "test"):
        for key, tensor in dataset.splits["train"].items():
            assert torch.equal(dataset.splits[name][key], tensor)
    assert caplog.messages == [
        f"dataset.{name}=0: there is no {name} split, so {name} stands for the training data again"
        for name in ("val", "test")
    ]


@pytest.mark.parametrize("is_log", [False, True])
def test_values_and_times_are_scaled_and_come_back(is_log):
    data = raw(12)
    dataset = made(data, log=is_log)
    units, train, test = dataset.offers["units"], dataset.splits["train"], dataset.splits["test"]
    seen = train["values"][0][train["mask"][0, :, 1]].double()
    torch.testing.assert_close(seen.mean(0)[1], torch.tensor(0.0).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen.std(0, correction=0)[1], torch.tensor(1.0).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        units.values(test["values"].double())[0, 1:], data.series[0].values[1:], rtol=1e-5, atol=0
    )
    torch.testing.assert_close(units.times(test["times"])[0], data.series[0].times)


def test_time_is_scaled_by_the_slope_of_the_values_whatever_its_unit():
    phase = torch.linspace(0, 20, 400, dtype=torch.float64)
    values = torch.stack([phase.sin(), 1e6 + 3e4 * phase.cos()], dim=1)
    scales = {
        unit: made(RawSeries((Series("s", phase * unit, values),), ("a", "b")), val=0, test=0)
        .offers["units"]
        .time_scale
        for unit in (1.0, 86400.0)
    }
    assert scales[1.0] == pytest.approx(1.0, rel=0.05)  # unit std, angular frequency 1
    assert scales[86400.0] == pytest.approx(86400 * scales[1.0])


def test_the_scale_of_time_is_no_less_than_the_spacing_and_no_more_than_the_span():
    def scale(values):
        times = torch.linspace(0, 50, 101, dtype=torch.float64)
        data = RawSeries((Series("s", times, values(times)[:, None]),), ("a",))
        return made(data, val=0, test=0, normalize=False).offers["units"].time_scale

    assert scale(lambda t: 1e3 * (4e4 * t).sin()) == 0.5
    assert scale(lambda t: 1e-9 * t.sin()) == 50
    assert scale(lambda t: t / 8) == pytest.approx(8)


def test_controls_and_statics_are_scaled_and_known_at_all_times():
    def one(number):
        plain = series(str(number), 10)
        controls = torch.arange(10.0, dtype=torch.float64)[:, None] * (number + 1)
        return Series(plain.name, plain.times, plain.values, controls, torch.tensor([float(number)]).double())

    data = RawSeries((one(0), one(1)), ("a", "b"), control_names=("dose",), static_names=("age",))
    dataset = made(data)
    test, offers = dataset.splits["test"], dataset.offers
    assert test["controls"].shape == (2, 10, 1)
    assert test["statics"].flatten().tolist() == [-1, 1]
    assert (offers["num_controls"], offers["num_statics"], offers["control_names"]) == (1, 1, ("dose",))
    controls = offers["control_scaling"].undo(test["controls"].view(-1, 1)).view(2, 10)
    torch.testing.assert_close(controls[1], 2 * torch.arange(10.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("number", [0, 1])
def test_windows_with_nothing_to_see_or_to_predict_are_left_out(number, caplog):
    caplog.set_level("INFO")
    one = series("s", 12)
    one.values[3 + number] = NAN
    dataset = made(RawSeries((one,), ("a", "b")), window=2)
    assert len(dataset.splits["train"]["start"]) == 6 - 2
    assert "2 of 6 samples of train are left out: nothing was observed" in caplog.text


MISTAKES = [
    ({"split": "random"}, "split must be one of time, series, got random"),
    ({"val": -1}, "val must be a whole number, or a fraction below 1, got -1"),
    ({"test": 2.5}, "test must be a whole number, or a fraction below 1, got 2.5"),
    ({"val": 0.01}, "dataset.val=0.01 of 10 times of series s0 is none: give more, or a whole number"),
    (
        {"val": 5, "test": 4},
        "dataset.val=5, dataset.test=4: series s0 has 10 times, which leaves 1 for training; at le",
    ),
    ({"split": "series"}, "dataset.val=2, dataset.test=3: there are 2 series, which leaves none for training"),
    ({"stride": 0}, "stride must be at least 1, got 0"),
    ({"context": 0}, "context must be at least 1, got 0"),
    ({"window": 1}, "window must be more than dataset.context=1, or nothing is left to forecast, got 1"),
    (
        {"window": 11},
        "dataset.window=11, dataset.context=1: no window fits into train; the longest series has 10 times",
    ),
    (
        {"window": 5},
        "dataset.window=5, dataset.context=1: no window fits into val (dataset.val=2, and a window forecasts 4 times)",
    ),
    ({"time_scale": 0.0}, "time_scale must be positive, got 0.0"),
    ({"stride": 2}, "stride has no effect without dataset.window, got 2: set it to 1"),
    ({"context": 2}, "context has no effect with dataset.split=time and no dataset.window, got 2: set it to 1"),
    ({"split_seed": -1}, "split_seed must be 0 or more, got -1"),
    (
        {"split": "series", "val": 1, "test": 0, "context": 10},
        "dataset.context=10: no series of val has more times than that; the longest series has 10 times",
    ),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES)
def test_each_mistake_is_one_line(change, message):
    with pytest.raises(ValueError) as error:
        made(raw(10, 9), **change)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        (
            [[1.0], [0.0], [2.0], [3.0]],
            {"log": True},
            "dataset.log=true needs values above 0: series s, row 2, column a",
        ),
        ([[2.0], [2.0], [2.0], [3.0]], {}, "dataset.normalize: column a has one value (2) in all of the training data"),
        ([[NAN], [NAN], [NAN], [3.0]], {}, "dataset: no sample of train has an observed value both in what the model"),
        (
            [[1.0], [1e300], [2.0], [3.0]],
            {},
            "dataset.normalize: the columns are too large, or too close to each other",
        ),
    ],
)
def test_values_that_do_not_fit_a_key_are_named(values, changes, message):
    table = torch.tensor(values, dtype=torch.float64)
    data = RawSeries((Series("s", torch.arange(4.0).double(), table),), ("a",))
    with pytest.raises(ValueError) as error:
        made(data, **{"val": 0, "test": 1, **changes})
    assert str(error.value).startswith(message)


def times_of(dataset, split, name=None, sample=0):
    """The times of a sample, or those that a mask has."""
    batch = dataset.splits[split]
    times = dataset.offers["units"].times(batch["times"])[sample].round().long()
    return times.unique().tolist() if name is None else times[batch[name][sample].any(1)].unique().tolist()


@pytest.mark.parametrize("drop", [0.3, 0.55, 0.99])
def test_dropped_times_are_left_out_of_train_and_targets_of_whole_new_series(drop):
    dataset = made(raw(*[20] * 12), split="series", val=4, test=4, context=15, drop=drop)
    stay = max(2, round(20 * (1 - drop)))
    assert dataset.splits["train"]["times"].shape == (4, 20)
    assert all(len(times_of(dataset, "train", name, k)) == stay for name in ("mask", "target") for k in range(4))
    for split, k in [(split, k) for split in ("val", "test") for k in range(4)]:
        first = 100 * int(dataset.sample_names[split][k].removeprefix("s"))
        shown, targets, dropped = (set(times_of(dataset, split, name, k)) for name in ("mask", "target", "dropped"))
        assert len(dropped) == 20 - stay
        assert shown == set(range(first, first + 15)) - dropped
        assert first in shown
        assert targets == set(range(first + 15, first + 20)) | dropped
        assert int(all_observed(dataset.splits[split])[k].any(1).sum()) == stay
    shown = visible(dataset.splits["val"])
    assert not {"target", "dropped"} & shown.keys()
    assert not shown["values"][~shown["mask"]].any()


def test_the_same_times_are_dropped_by_a_seed_whatever_the_split():
    def dropped(seed, **keys):
        dataset = made(raw(*[20] * 4), drop=0.5, split_seed=seed, **keys)
        kept = {dataset.sample_names["train"][k]: times_of(dataset, "train", "mask", k) for k in range(2)}
        return {name: [time for time in times if time % 100 < 10] for name, times in kept.items()}

    by_time, again, other = dropped(0, val=5, test=5), dropped(0, val=2, test=2), dropped(1)
    assert by_time == again
    assert other.keys() == by_time.keys()
    assert other != by_time
    whole = dropped(0, split="series", val=1, test=1)
    every = made(raw(*[20] * 4), drop=0.5)
    everywhere = {f"s{k}": [t for t in times_of(every, "train", "mask", k) if t % 100 < 10] for k in range(4)}
    assert {name: everywhere[name] for name in whole} == whole


def test_dropped_times_before_the_test_times_count_in_val_alone():
    dataset = made(raw(20), drop=0.5, val=4, test=4)
    val, test = (set(times_of(dataset, split, "target")) for split in ("val", "test"))
    dropped = set(times_of(dataset, "test", "dropped"))
    assert val == {12, 13, 14, 15} | {time for time in dropped if time < 12}
    assert test == {16, 17, 18, 19}
    assert not dropped & set(times_of(dataset, "test", "mask"))


@pytest.mark.parametrize("window", [None, 5])
def test_nothing_of_dropped_values_reaches_train(window):
    data = raw(20, 20, 20)
    before = made(data, drop=0.4, window=window, split="series", val=1, test=1)
    changed = []
    for each in data.series:
        values = each.values.clone()
        values[with_drops(data, SeriesKeys(**{**KEYS, "drop": 0.4})).series[len(changed)].dropped] = 1e9
        changed.append(replace(each, values=values))
    after = made(replace(data, series=tuple(changed)), drop=0.4, window=window, split="series", val=1, test=1)
    assert after.offers == before.offers
    for name, tensor in before.splits["train"].items():
        assert torch.equal(after.splits["train"][name], tensor), name
    val = after.splits["val"]
    assert val["mask"].any()
    assert not (val["mask"] & (val["values"] > 1e6)).any()


def test_dropping_changes_neither_the_digest_nor_what_is_not_dropped():
    data = raw(20, 15)
    plain, dropped = made(data, normalize=False), made(data, normalize=False, drop=0.5)
    assert dropped.digest == plain.digest
    assert "dropped" not in plain.splits["train"]
    before, after = plain.splits["train"], dropped.splits["train"]
    mask = after["mask"]
    torch.testing.assert_close(after["values"][mask], before["values"][mask])
    assert torch.equal(mask | (after["dropped"] & before["mask"]), before["mask"])


def labelled(targets, **more):
    data = raw(*[5] * len(targets))
    return replace(data, targets=torch.tensor(targets), **more)


def test_each_split_has_classes_in_the_same_proportion():
    data = labelled([0] * 20 + [1] * 10, class_names=("a", "b"))
    dataset = made(data, split="series", val=6, test=0.3)
    counts = {name: split["targets"].bincount().tolist() for name, split in dataset.splits.items()}
    assert counts == {"train": [10, 5], "val": [4, 2], "test": [6, 3]}
    assert (dataset.offers["class_names"], dataset.offers["class_counts"]) == (("a", "b"), (10, 5))
    for name, split in dataset.splits.items():
        assert [int(each[1:]) >= 20 for each in dataset.sample_names[name]] == split["targets"].tolist()
    other = made(data, split="series", val=6, test=0.3, split_seed=1)
    assert other.sample_names["test"] != dataset.sample_names["test"]


def test_a_series_that_is_too_short_for_a_forecast_still_has_a_label():
    data = raw(*[9, 3] * 4)
    classes = replace(data, targets=torch.arange(8) % 2, class_names=("long", "short"))
    labelled_val = made(classes, split="series", val=4, test=2, context=5).splits["val"]
    assert labelled_val["targets"].sum() == 2
    assert labelled_val["mask"].any(2).sum(1).tolist() == [3 if label else 5 for label in labelled_val["targets"]]
    assert labelled_val["target"].any(2).sum(1).tolist() == [0 if label else 4 for label in labelled_val["targets"]]
    assert len(made(data, split="series", val=4, test=2, context=5).splits["val"]["start"]) < 4


def test_series_of_the_sources_own_test_split_are_test():
    data = labelled([0, 1] * 6, class_names=("a", "b"), test_series=range(8, 12))
    dataset = made(data, split="series", val=2, test=None)
    assert dataset.sample_names["test"] == ["s8", "s9", "s10", "s11"]
    assert dataset.splits["val"]["targets"].sort().values.tolist() == [0, 1]
    assert len(dataset.splits["train"]["start"]) == 6


def test_values_of_series_are_scaled_as_train_says():
    data = labelled([[1.0, 5.0], [2.0, 7.0], [3.0, 9.0], [400.0, 1.0]], target_names=("weight", "age"))
    dataset = made(data, split="series", val=0, test=1, split_seed=1)
    train, scaling = dataset.splits["train"], dataset.offers["target_scaling"]
    assert (train["targets"].dtype, dataset.offers["target_names"]) == (torch.float32, ("weight", "age"))
    torch.testing.assert_close(train["targets"].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    numbers = [int(name[1:]) for split in ("train", "test") for name in dataset.sample_names[split]]
    both = torch.cat([dataset.splits[split]["targets"] for split in ("train", "test")])
    torch.testing.assert_close(scaling.undo(both), data.targets.float()[numbers])
    spec = DataSpec.from_state_dict(DataSpec.of(dataset).state_dict())
    arrays = {name: tensor[numbers[:3]] for name, tensor in data.arrays().items()}
    batch = spec.prepared({**arrays, "targets": data.targets[numbers[:3]].float()}, None)
    torch.testing.assert_close(batch["targets"], train["targets"])


LABELLED = [
    ({"val": 7}, "dataset.val=7, dataset.test=1: there are 8 series, which leaves none for training"),
    ({"val": 6}, "dataset: class b has no sample in train; give more samples of it, or leave it out"),
    ({"test": None}, "dataset.test must be a whole number, or a fraction below 1, got null: the dataset has no test s"),
    ({"drop": 1.0}, "drop must be 0 or more and below 1, got 1.0"),
    ({"drop": -0.1}, "drop must be 0 or more and below 1, got -0.1"),
    ({"own": (7,)}, "test must be null, as the dataset has test series of its own, got 1"),
    ({"context": 9}, "dataset.context=9: no series of val has more times than that; the longest series has 5 times"),
    ({"split": "time", "drop": 0.8}, "dataset.drop=0.8: series s0 keeps 1 of its 3 times for training; at least 2 are"),
    ({"train_times": 3, "context": 4}, "context must be at most the 3 times that training has, got 4"),
]


@pytest.mark.parametrize(("change", "message"), LABELLED)
def test_each_mistake_with_labels_and_drops_is_one_line(change, message):
    given = {"split": "series", "val": 1, "test": 1, **change}
    own, times = given.pop("own", ()), given.pop("train_times", None)
    data = labelled([0] * 7 + [1], class_names=("a", "b"), test_series=own, train_times=times)
    with pytest.raises(ValueError) as error:
        made(data, **given)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_of_labels_that_a_split_by_time_would_give_away_none_are_offered():
    dataset = made(labelled([0, 1], class_names=("a", "b")), val=1, test=1)
    assert "targets" not in dataset.splits["train"]
    assert "class_names" not in dataset.offers
    assert dataset.lacks["class_names"].endswith("set dataset.split=series")
