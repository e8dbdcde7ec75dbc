"""Series in a user's own .npz file, and what is to be told of them."""

import re

import numpy as np
import pytest
import torch
from shipped import dataset_keys

from node_cli.datasets.array_labels import with_targets
from node_cli.datasets.npz import npz
from node_cli.datasets.spec import DataSpec
from node_cli.series import MASK, TARGET, TIMES, VALUES

COUNT, LONGEST = 8, 4
LENGTHS = [4, 3, 4, 2, 4, 4, 3, 4]
SHAPE = (COUNT, LONGEST)
TIMES_OF = np.minimum(np.arange(LONGEST) * 1.5, (np.array(LENGTHS)[:, None] - 1) * 1.5) + np.arange(COUNT)[:, None]
REAL = np.arange(LONGEST) < np.array(LENGTHS)[:, None]
CHANNELS = np.where(REAL[..., None], np.random.default_rng(0).normal(size=(*SHAPE, 2)), np.nan)
CHANNELS[0, 1, 1] = np.nan
GOOD = {"times": TIMES_OF, "values": CHANNELS}
WORDS = np.array(["sick", "well", "sick", "well", "well", "sick", "well", "sick"])
WHOLE = np.array([10, 2, 2, 10, 2, 10, 10, 2])
RATES = np.arange(COUNT) ** 2 + 0.5


def made(folder, arrays, **changes):
    path = folder / "mine.npz"
    np.savez(path, **arrays)
    return npz(**{**dataset_keys("npz"), "path": str(path), "val": 2, "test": 2, **changes})


def told(dataset):
    """The target of each series, by its name."""
    return {
        name: target
        for split, names in dataset.sample_names.items()
        for name, target in zip(names, dataset.splits[split]["targets"].tolist(), strict=True)
    }


def test_series_are_those_of_the_arrays(tmp_path):
    statics = np.arange(COUNT)[:, None] * 1.0
    doses = np.where(REAL, 1.0 + np.arange(COUNT)[:, None], 0)[..., None]
    names = {"series": np.array([f"p{k}" for k in range(COUNT)]), "values_columns": np.array(["heart", "temp"])}
    dataset = made(tmp_path, {**GOOD, "controls": doses, "statics": statics, **names}, time_scale=1)
    offers = dataset.offers
    assert (offers["channel_names"], offers["control_names"], offers["static_names"]) == (
        ("heart", "temp"),
        ("control",),
        ("static",),
    )
    seen = set()
    for split, called in dataset.sample_names.items():
        batch = dataset.splits[split]
        times = offers["units"].times(batch[TIMES])
        values = offers["units"].values(batch[VALUES].double())
        for k, name in enumerate(called):
            seen.add(name)
            number = int(name[1:])
            length = LENGTHS[number]
            observed = (batch[MASK] | batch[TARGET])[k, :length]
            np.testing.assert_allclose(times[k, :length], TIMES_OF[number, :length])
            np.testing.assert_array_equal(observed, np.isfinite(CHANNELS[number, :length]))
            np.testing.assert_allclose(values[k, :length][observed], CHANNELS[number, :length][observed], rtol=1e-5)
            statics_of = offers["static_scaling"].undo(batch["statics"][k : k + 1])
            assert statics_of.item() == pytest.approx(number, abs=1e-5)
    assert seen == {f"p{k}" for k in range(COUNT)}
    assert made(tmp_path, GOOD).offers["channel_names"] == ("channel_1", "channel_2")
    assert made(tmp_path, GOOD).digest != made(tmp_path, {**GOOD, "values": CHANNELS + 1}).digest


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (WORDS, ("sick", "well")),
        (WHOLE, ("2", "10")),
        (WHOLE * 1.0, ("2", "10")),
        (WHOLE.astype(str), ("2", "10")),
        (WORDS == "sick", ("0", "1")),
    ],
    ids=["words", "whole", "floats", "digits", "bools"],
)
def test_words_and_whole_numbers_are_classes(labels, names, tmp_path):
    dataset = made(tmp_path, {**GOOD, "outcome": labels}, label="outcome")
    assert (dataset.offers["class_names"], dataset.offers["class_counts"]) == (names, (2, 2))
    written = [str(int(each)) if labels.dtype.kind in "bf" else str(each) for each in labels.tolist()]
    assert told(dataset) == {str(k): names.index(each) for k, each in enumerate(written)}
    spec = DataSpec.from_state_dict(DataSpec.of(dataset).state_dict())
    assert spec.prepared({**GOOD, "targets": labels}, None)["targets"].tolist() == [*map(names.index, written)]
    for wrong in [np.full(COUNT, "7"), *([np.full(COUNT, 7), np.full(COUNT, 7.0)] if names == ("2", "10") else [])]:
        with pytest.raises(ValueError, match=f"targets must be of the classes {names[0]}, {names[1]}, got 7"):
            spec.prepared({**GOOD, "targets": wrong}, None)


@pytest.mark.parametrize(
    ("label", "names"),
    [("rate", ("rate",)), (["whole"], ("whole",)), (["rate", "whole"], ("rate", "whole")), ("two", ("x", "y"))],
)
def test_other_numbers_and_those_of_a_list_are_values(label, names, tmp_path):
    arrays = {"rate": RATES, "whole": WHOLE, "two": np.stack([RATES, WHOLE], 1), "two_columns": np.array(["x", "y"])}
    dataset = made(tmp_path, {**GOOD, **arrays}, label=label)
    assert dataset.offers["target_names"] == names
    found = {
        int(name): dataset.offers["target_scaling"].undo(torch.tensor([row]))[0].tolist()
        for name, row in told(dataset).items()
    }
    columns = {"rate": RATES, "x": RATES, "whole": WHOLE, "y": WHOLE}
    for number, row in found.items():
        assert row == pytest.approx([columns[name][number] for name in names], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("label", ["rate", ["rate"], ["rate", "whole"], ["whole", "two"]])
def test_labels_of_new_data_are_read_as_those_of_training(label, tmp_path):
    arrays = {**GOOD, "rate": RATES, "whole": WHOLE, "two": np.stack([RATES + 1, RATES * WHOLE], 1)}
    dataset = made(tmp_path, arrays, label=label)
    asked = {name: arrays[name] for name in (*GOOD, *([label] if isinstance(label, str) else label))}
    found = DataSpec.of(dataset).prepared(with_targets(asked, label), None)
    np.testing.assert_allclose(found["targets"], [target for _, target in sorted(told(dataset).items())], rtol=1e-6)
    assert "targets" not in DataSpec.of(dataset).prepared(with_targets(GOOD, label), None)


def test_what_a_label_may_be_beside_is_told(tmp_path, caplog):
    caplog.set_level("INFO")
    made(tmp_path, {**GOOD, "outcome": WORDS, "rate": RATES}, label="outcome")
    assert "mine.npz: rate" in caplog.text


@pytest.mark.parametrize("changes", [{}, {"window": 3}], ids=["whole", "windows"])
def test_series_whose_first_times_have_no_value_are_told_too(changes, tmp_path):
    late = np.random.default_rng(1).normal(size=(*SHAPE, 1))
    late[:, :2] = np.nan
    times = np.tile(np.arange(LONGEST) * 1.0, (COUNT, 1))
    dataset = made(tmp_path, {"times": times, "values": late, "outcome": WORDS}, label="outcome", **changes)
    windows = 2 if changes else 1
    assert {name: len(of_it) for name, of_it in dataset.sample_names.items()} == {
        "train": 4 * windows,
        "val": 2 * windows,
        "test": 2 * windows,
    }
    for split in dataset.splits.values():
        assert split[MASK].any(1).all()
    forecast = dataset.splits["test"]
    assert not (forecast[MASK] & forecast[TARGET]).any()


def changed(array, value):
    array = np.array(array)
    array[4] = value
    return array


LABEL = {"label": "outcome"}
MISTAKES = {
    "no values": (
        {"times": TIMES_OF},
        {},
        "{path}: values is missing: a batch of these series has times (n, T), values",
    ),
    "no times": ({"values": CHANNELS}, {}, "{path}: times is missing: a batch of"),
    "one channel without its dimension": (
        {**GOOD, "values": CHANNELS[..., 0]},
        {},
        "{path}: values must be (8, 4, channels), got (8, 4)",
    ),
    "times of one series": ({**GOOD, "times": TIMES_OF[0]}, {}, "{path}: times must be (n, T), got (4,)"),
    "controls of other times": (
        {**GOOD, "controls": CHANNELS[:, :3]},
        {},
        "{path}: controls must be (8, 4, 2), got (8, 3, 2)",
    ),
    "a control is missing": ({**GOOD, "controls": CHANNELS}, {}, "{path}: controls holds numbers that are NaN or inf"),
    "infinite": ({**GOOD, "values": changed(CHANNELS, np.inf)}, {}, "{path}: values holds numbers that are infinite"),
    "times that do not increase": (
        {**GOOD, "times": changed(TIMES_OF, [4, 3, 5, 6])},
        {},
        "{path}: times must increase: sample 4 has 3 after 4, at time 1",
    ),
    "padding that is observed": (
        {**GOOD, "values": np.nan_to_num(CHANNELS)},
        {},
        "sample 1 has 4 after 4, at time 3; a shorter series repeats its last time, with values of NaN",
    ),
    "a series of one time": (
        {"times": changed(TIMES_OF, 1.0), "values": changed(CHANNELS, np.nan)},
        {},
        "{path}: series 4 has 1 time; at least 2 are needed",
    ),
    "words as values": ({**GOOD, "values": np.full((*SHAPE, 1), "a")}, {}, "values must be an array of numbers"),
    "objects": ({**GOOD, "outcome": WORDS.astype(object)}, LABEL, "holds outcome, which cannot be read: Object arrays"),
    "an unknown array": (
        {**GOOD, "outcome": WORDS},
        {},
        "{path} holds outcome; allowed are times, values, controls, statics, series, values_columns, controls_columns,",
    ),
    "a misspelt array": ({**GOOD, "outcome": WORDS, "control_values": CHANNELS}, LABEL, "{path} holds control_values;"),
    "a name too few": (
        {**GOOD, "values_columns": np.array(["a"])},
        {},
        "values_columns must be 2 words, got shape (1,)",
    ),
    "a name twice": ({**GOOD, "series": WORDS}, {}, "{path}: series holds 'sick' twice"),
    "an empty name": ({**GOOD, "series": np.array([*"abcdefg", ""])}, {}, "{path}: series[7]: the name is missing"),
    "no such label": (GOOD, LABEL, "dataset.label: {path} holds no array outcome, only times, values"),
    "a misspelt label": ({**GOOD, "outcom": WORDS}, LABEL, "holds no array outcome, only outcom, times, values"),
    "no label": (GOOD, {"label": []}, "label must name an array, or a list of arrays of numbers, or be null, got []"),
    "times as labels": (GOOD, {"label": "times"}, "dataset.label: times of {path} is read as data, and cannot be the"),
    "inputs as labels": ({"inputs": CHANNELS[:, 0]}, {"label": ["inputs"]}, "label: inputs of {path} is read as data"),
    "a label twice": ({**GOOD, "outcome": RATES}, {"label": ["outcome"] * 2}, "dataset.label: outcome is there twice"),
    "a label too few": (
        {**GOOD, "outcome": WORDS[1:]},
        LABEL,
        "outcome has shape (7,), must be (8,), one entry a sample",
    ),
    "labels at each time": ({**GOOD, "outcome": CHANNELS}, LABEL, "outcome has shape (8, 4, 2), must be (8,), one ent"),
    "a number is missing": (
        {**GOOD, "outcome": changed(RATES, np.nan)},
        LABEL,
        "outcome[4] is nan; every sample needs",
    ),
    "a whole number is missing": ({**GOOD, "outcome": changed(WHOLE * 1.0, np.nan)}, LABEL, "outcome[4] is nan; every"),
    "a word is missing": ({**GOOD, "outcome": changed(WORDS, "")}, LABEL, "outcome[4]: the label is missing"),
    "a word says that it is missing": ({**GOOD, "outcome": changed(WORDS, "nan")}, LABEL, "outcome[4]: the label is m"),
    "words in a list": ({**GOOD, "outcome": WORDS}, {"label": ["outcome"]}, "outcome holds words; numbers are wanted"),
    "words in two columns": (
        {**GOOD, "outcome": np.stack([WORDS, WORDS], 1)},
        LABEL,
        "outcome holds words; numbers are wanted",
    ),
    "bytes": ({**GOOD, "outcome": WORDS.astype("S4")}, LABEL, "outcome has dtype |S4, must be words or numbers"),
    "dates": ({**GOOD, "outcome": WHOLE.astype("M8[D]")}, LABEL, "outcome has dtype datetime64[D], must be words or"),
    "complex": ({**GOOD, "outcome": RATES + 0j}, LABEL, "outcome has dtype complex128, must be words or numbers"),
    "one class": ({**GOOD, "outcome": 0 * WHOLE}, LABEL, "outcome of {path} has one class, 0; at least 2 are needed"),
    "a class of its own": (
        {**GOOD, "outcome": np.arange(COUNT)},
        LABEL,
        "has no sample in train; give more samples of it, or leave it out; to read whole numbers as values, write",
    ),
    "one value": (
        {**GOOD, "outcome": 0 * RATES + 0.5},
        LABEL,
        "dataset.normalize: label outcome has one value (0.5) in all of the training data",
    ),
    "too large a value": (
        {**GOOD, "outcome": changed(RATES, 1e300)},
        {**LABEL, "normalize": False},
        "dataset.normalize: the labels are too large for float32; give them in another unit",
    ),
    "labels of times": ({**GOOD, "outcome": WORDS}, {**LABEL, "split": "time"}, "label needs dataset.split=series"),
    "cropped series": (GOOD, {"crop_padding": 1}, "dataset.crop_padding=1, dataset.flip=False: only images can be"),
    "points with a key of series": (
        {"inputs": CHANNELS[:, 0]},
        {"drop": 0.5},
        "dataset.drop=0.5 has no effect on the inputs of {path}, which are no series: leave it out",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named(mistake, tmp_path):
    arrays, changes, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=re.escape(message.format(path=tmp_path / "mine.npz"))) as caught:
        made(tmp_path, arrays, **changes)
    assert "\n" not in str(caught.value)
