"""Series in the units of the user, made into what a model was trained on; and what a checkpoint keeps of them."""

import io
import math

import numpy as np
import pytest
import torch

from node_cli.datasets.series.assembling import assemble
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.own_table import read_new_series
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.spec import DataSpec

NAN = math.nan
KEYS = SeriesKeys("time", 2, 3, 0, None, 1, 1, True, True, None, 0.0)


def one(name, length):
    times = torch.arange(length, dtype=torch.float64) * 1.5 + 7
    values = torch.stack([1e3 + times.sin(), times.square() + 0.1], dim=1)
    values[2, 1] = NAN
    return Series(name, times, values, times[:, None].cos(), torch.tensor([float(length)]).double())


def raw(*lengths):
    series = tuple(one(str(number), length) for number, length in enumerate(lengths))
    return RawSeries(series, ("a", "b"), ("dose",), ("age",), time_name="day", time_unit="day")


RAW = raw(12, 9)
DATASET = assemble(RAW, KEYS)
SPEC = DataSpec.of(DATASET)


def test_a_checkpoint_keeps_all_that_is_offered():
    file = io.BytesIO()
    torch.save(SPEC.state_dict(), file)
    file.seek(0)
    again = DataSpec.from_state_dict(torch.load(file, weights_only=True))
    assert again == SPEC
    assert again.offers["units"].is_log is True


def test_raw_series_become_those_of_the_split_to_the_last_bit():
    test = DATASET.splits["test"]
    given = {name: test[name] for name in ("mask", "target", "start")}
    for arrays in (RAW.arrays(), {name: tensor.numpy() for name, tensor in RAW.arrays().items()}):
        batch = SPEC.prepared({**arrays, **given}, None)
        assert batch.keys() == test.keys()
        for name, tensor in test.items():
            assert batch[name].dtype == tensor.dtype
            assert torch.equal(batch[name], tensor), name


def test_any_number_of_times_and_all_that_was_observed_is_seen():
    arrays = raw(5).arrays()
    batch = SPEC.prepared(arrays, ("times", "values", "mask"))
    observed = ~arrays["values"].isnan()
    assert torch.equal(batch["mask"], observed)
    assert torch.equal(batch["target"], observed)
    assert batch["start"].tolist() == [-1]
    assert not batch["values"][~observed].any()


def test_times_stay_float64_on_every_way_to_a_device():
    moved = DATASET.to(torch.device("meta"), torch.float32).splits["train"]
    assert (moved["times"].dtype, moved["values"].dtype) == (torch.float64, torch.float32)
    assert DATASET.to(torch.device("meta"), torch.float64).splits["train"]["values"].dtype == torch.float64


def changed(name, change):
    arrays = {key: tensor.clone() for key, tensor in RAW.arrays().items()}
    arrays[name] = change(arrays[name]) if callable(change) else change
    return arrays


def with_entry(place, value):
    def change(tensor):
        tensor[place] = value
        return tensor

    return change


MISTAKES = [
    (
        {},
        "times is missing: a batch of these series has times (n, T), values (n, T, 2), controls (n, T, 1), statics (n",
    ),
    ({k: v for k, v in RAW.arrays().items() if k != "controls"}, "controls is missing: a batch of these series has"),
    (changed("inputs", torch.zeros(2)), "inputs is unknown: a batch of these series has"),
    (changed("times", torch.zeros(2)), "times must be (n, T), got (2,)"),
    (changed("times", lambda t: t[:, :-1]), "values must be (2, 11, 2), got (2, 12, 2)"),
    (changed("statics", lambda t: t[:1]), "statics must be (2, 1), got (1, 1)"),
    (changed("values", [["a"]]), "values must be an array of numbers ("),
    (changed("values", lambda t: t + 0j), "values must be numbers, got complex128"),
    (changed("values", with_entry((0, 1, 0), math.inf)), "values holds numbers that are infinite"),
    (
        changed("values", with_entry((1, 3, 1), 0.0)),
        "values must be above 0, as the model learned their logarithm: samp",
    ),
    (changed("controls", with_entry((0, 1, 0), NAN)), "controls holds numbers that are NaN or infinite"),
    (changed("times", with_entry((0, 1), NAN)), "times holds numbers that are NaN or infinite"),
    (changed("times", with_entry((0, 1), 7.0)), "times must increase: sample 0 has 7 after 7, at time 1"),
    (changed("times", with_entry((0, 11), 22.0)), "times must increase: sample 0 has 22 after 22, at time 11"),
    (changed("times", with_entry((1, 11), 1.0)), "times must increase: sample 1 has 19 after 19, at time 9"),
    (changed("mask", torch.ones(2, 12, 2)), "mask must be bool, got float32"),
    (changed("start", torch.zeros(2)), "start must be whole numbers, got float32"),
    (changed("start", torch.tensor([0, 2])), "start must be from 0 to 1, or -1: none of the training's"),
]


@pytest.mark.parametrize(("arrays", "message"), MISTAKES)
def test_what_is_not_like_the_training_data_is_refused(arrays, message):
    with pytest.raises(ValueError) as error:
        SPEC.prepared(arrays, None)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"offers": {**SPEC.state_dict()["offers"], "channel_names": ("a",)}},
        {"offers": {**SPEC.state_dict()["offers"], "num_starts": 1.5}},
        {"offers": {**SPEC.state_dict()["offers"], "position_channels": (0, 2)}},
        {"offers": {**SPEC.state_dict()["offers"], "calendar": None}},
        {"offers": {k: v for k, v in SPEC.state_dict()["offers"].items() if k != "num_controls"}},
        {"scalings": {}},
        {"offers": {**SPEC.state_dict()["offers"], "target_names": ("weight",)}},
        {"units": {"units": {**SPEC.state_dict()["units"]["units"], "time_scale": 0.0}}},
        {"units": {"units": {**SPEC.state_dict()["units"]["units"], "time_scale": -1.0}}},
        {"units": {"units": {**SPEC.state_dict()["units"]["units"], "mean": (1.0,)}}},
        {"units": {"units": {**SPEC.state_dict()["units"]["units"], "is_log": 1}}},
        {"units": {"units": {}}},
    ],
)
def test_damage_is_named(change):
    with pytest.raises(ValueError, match="what it holds of its dataset is damaged"):
        DataSpec.from_state_dict(SPEC.state_dict() | change)


def test_a_table_of_new_series_is_read_by_the_names_of_the_training(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("who,day,b,a,dose,age,note\nx,0,1,2,3,4,hello\nx,1,,,3,4,\ny,0,1,,0,5,\ny,5,1,,0,5,\n")
    arrays = read_new_series(str(path), SPEC.offers, {"series": "who", "split": "time"}).arrays()
    np.testing.assert_array_equal(arrays["values"], [[[2, 1], [NAN, NAN]], [[NAN, 1], [NAN, 1]]])
    assert SPEC.prepared(arrays, None)["statics"].shape == (2, 1)
    path.write_text("day,b,a,dose,age\n2024-01-01,1,1,1,1\n2024-01-02,1,1,1,1\n")
    with pytest.raises(ValueError, match="column day must hold numbers, as in training, and holds dates"):
        read_new_series(str(path), SPEC.offers, {})
    path.write_text("day,a,dose,age\n0,1,1,1\n")
    with pytest.raises(ValueError, match="has no column b: its columns are day, a, dose, age"):
        read_new_series(str(path), SPEC.offers, {})
