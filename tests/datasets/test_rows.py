"""Rows of a table as points: what is read, how it is split and scaled, and each mistake in one line."""

import re

import pytest
import torch
from shipped import dataset_keys

from node_cli.datasets.faithful import faithful
from node_cli.datasets.series.own_table import own_table
from node_cli.datasets.spec import DataSpec

RANDOM = torch.Generator().manual_seed(0)
VALUES = (torch.randn(50, 3, generator=RANDOM, dtype=torch.float64) * torch.tensor([1.0, 1e3, 1e-2]) + 5).tolist()
TABLE = "a,b,c\n" + "".join(",".join(map(repr, row)) + "\n" for row in VALUES)


def rows_of(folder, text=TABLE, **changes):
    path = folder / "mine.csv"
    path.write_text(text)
    return own_table(**{**dataset_keys("csv"), "path": str(path), **changes})


def test_every_row_is_a_sample_of_one_split(tmp_path):
    dataset = rows_of(tmp_path, normalize=False)
    assert {name: len(split["inputs"]) for name, split in dataset.splits.items()} == {"train": 35, "val": 5, "test": 10}
    assert {name for split in dataset.splits.values() for name in split} == {"inputs"}
    everything = torch.cat([split["inputs"] for split in dataset.splits.values()])
    assert sorted(everything.tolist()) == sorted(torch.tensor(VALUES, dtype=torch.float32).tolist())
    assert dataset.offers == {"input_shape": (3,), "scaling": None, "column_names": ("a", "b", "c")}


def test_columns_are_chosen_and_train_alone_scales_them(tmp_path):
    dataset = rows_of(tmp_path, columns=["c", "b"], val=7, test=8)
    assert dataset.offers["column_names"] == ("c", "b")
    assert {name: len(split["inputs"]) for name, split in dataset.splits.items()} == {"train": 35, "val": 7, "test": 8}
    train = dataset.splits["train"]["inputs"].double()
    torch.testing.assert_close(train.mean(0), torch.zeros(2).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(2).double(), rtol=1e-3, atol=0)
    assert abs(dataset.splits["test"]["inputs"].mean().item()) > 1e-3


def test_the_seed_fixes_the_split_and_the_digest_is_of_the_data(tmp_path):
    one, again, other = (rows_of(tmp_path, split_seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.splits["val"]["inputs"], again.splits["val"]["inputs"])
    assert not torch.equal(one.splits["val"]["inputs"], other.splits["val"]["inputs"])
    assert one.digest == again.digest == rows_of(tmp_path, normalize=False).digest
    assert one.digest != rows_of(tmp_path, text=TABLE.replace("\n", "\n1,2,3\n", 1)).digest


def test_new_rows_are_scaled_as_those_of_training(tmp_path):
    dataset = rows_of(tmp_path, val=0.2)
    spec = DataSpec.from_state_dict(DataSpec.of(dataset).state_dict())
    assert spec.offers["column_names"] == ("a", "b", "c")
    new = spec.prepared({"inputs": torch.tensor(VALUES, dtype=torch.float64)}, ("inputs",))["inputs"]
    known = torch.cat([split["inputs"] for split in dataset.splits.values()])
    assert sorted(new.tolist()) == sorted(known.tolist())


KINDS = "a,kind\n" + "".join(f"{k},{'xxy'[k % 3]}\n" for k in range(60))


def test_a_label_is_a_class_of_which_each_split_has_its_share(tmp_path):
    dataset = rows_of(tmp_path, KINDS, label="kind", normalize=False)
    assert dataset.offers["column_names"] == ("a",)
    assert (dataset.offers["class_names"], dataset.offers["class_counts"]) == (("x", "y"), (28, 14))
    assert [int(split["targets"].sum()) for split in dataset.splits.values()] == [4, 2, 14]
    for split in dataset.splits.values():
        assert [int(row) % 3 == 2 for row in split["inputs"][:, 0]] == split["targets"].bool().tolist()
    assert dataset.lacks["target_names"] == "the labels are classes: take task=classification"
    assert dataset.digest != rows_of(tmp_path, KINDS.replace("1,x", "1,y", 1), label="kind", normalize=False).digest


@pytest.mark.parametrize(("label", "left"), [("c", ("a", "b")), (["b"], ("a", "c")), (["c", "a"], ("b",))])
def test_labels_that_are_numbers_are_scaled_as_train_says(label, left, tmp_path):
    dataset = rows_of(tmp_path, label=label)
    names = (label,) if isinstance(label, str) else tuple(label)
    assert (dataset.offers["column_names"], dataset.offers["target_names"]) == (left, names)
    train = dataset.splits["train"]["targets"].double()
    torch.testing.assert_close(train.mean(0), torch.zeros(len(names)).double(), rtol=0, atol=1e-4)
    everything = torch.cat([split["targets"] for split in dataset.splits.values()])
    raw = torch.tensor([[row["abc".index(name)] for name in names] for row in VALUES])
    found = dataset.offers["target_scaling"].undo(everything)
    torch.testing.assert_close(found.sort(0).values, raw.sort(0).values, rtol=1e-4, atol=1e-4)
    spec = DataSpec.from_state_dict(DataSpec.of(dataset).state_dict())
    inputs = torch.zeros(2, len(left))
    assert set(spec.prepared({"inputs": inputs}, ("inputs",))) == {"inputs"}
    again = spec.prepared({"inputs": inputs, "targets": raw[:2]}, ("inputs",))["targets"]
    torch.testing.assert_close(dataset.offers["target_scaling"].undo(again), raw[:2], rtol=1e-4, atol=1e-4)
    damaged = DataSpec.of(dataset).state_dict()
    damaged["offers"]["target_names"] = (*names, "another")
    with pytest.raises(ValueError, match="what it holds of its dataset is damaged"):
        DataSpec.from_state_dict(damaged)


TEXT = "a,who\n1,x\n2,y\n"
MISTAKES = {
    "no path": ({"path": None}, TABLE, "dataset.path is required: set dataset.path=..., and, of series, dataset.time"),
    "an unknown column": ({"columns": ["aa"]}, TABLE, "has no column aa: did you mean a? its columns are a, b, c"),
    "a column twice": ({"columns": ["a", "b", "a"]}, TABLE, "dataset.columns: a is there twice"),
    "no columns": ({"columns": []}, TABLE, "columns must name at least one column of values"),
    "text": (
        {},
        TEXT,
        "row 2, column who: 'x' is not a number; name the columns of numbers in dataset.columns, or, of",
    ),
    "nothing": (
        {},
        "a,b\n1,2\n3,\n",
        "row 3, column b: it is missing; leave the row or the column out, or, of series,",
    ),
    "too large": ({}, "a,b\n1,2\n3,1e39\n", "row 3, column b: 1e+39 is too large for float32"),
    "few rows": ({}, "a,b\n1,2\n2,1\n3,3\n", "dataset.val=0.1 of 3 samples is none: give more, or a whole number"),
    "all rows": ({"val": 10, "test": 40}, TABLE, "dataset.test=40, dataset.val=10: of the 50 samples of"),
    "no validation": ({"val": 0}, TABLE, "dataset.test=0.2, dataset.val=0: of the 50 samples of"),
    "windows": ({"window": 5}, TABLE, "dataset.window=5 has no effect without dataset.time: leave it out"),
    "a split by series": ({"split": "series"}, TABLE, "dataset.split=series has no effect without dataset.time"),
    "a logarithm": ({"log": True}, TABLE, "dataset.log=True has no effect without dataset.time"),
    "a unit of time": ({"time_unit": "day"}, TABLE, "dataset.time_unit=day has no effect without dataset.time"),
    "an unknown label": ({"label": "d"}, TABLE, "dataset.label: {path} has no column d: its columns are a, b, c"),
    "no label": ({"label": []}, TABLE, "label must name a column, or a list of columns of numbers, or be null"),
    "a label twice": ({"label": ["a", "a"]}, TABLE, "dataset.label: a is there twice"),
    "a label among the columns": (
        {"label": "a", "columns": ["a", "b"]},
        TABLE,
        "dataset.label: column a is already in dataset.columns",
    ),
    "labels alone": ({"label": ["a", "b", "c"]}, TABLE, "has no column beside those of dataset.label"),
    "words as values": ({"label": ["kind"]}, KINDS, "row 2, column kind: 'x' is not a number"),
    "a label is missing": (
        {"label": "kind"},
        KINDS.replace("\n3,x", "\n3,NaN"),
        "row 5, column kind: the label is missing",
    ),
    "one class": ({"label": "kind"}, KINDS.replace("y", "x"), "column kind of {path} has one class, x; at least 2"),
    "a rare class": (
        {"label": "kind"},
        KINDS.replace("\n4,x", "\n4,z"),
        "dataset.test=0.2, dataset.val=0.1: class z has 1 sample(s), too few to leave one in every split; give more",
    ),
    "whole numbers for values": (
        {"label": "n"},
        "a,n\n" + "".join(f"{k},{k * k}\n" for k in range(50)),
        "other fractions; to read whole numbers as values, write dataset.label=[NAME]",
    ),
    "a label of one value": (
        {"label": "c", "columns": ["a"]},
        "a,c\n" + "".join(f"{k},0.5\n" for k in range(50)),
        "dataset.normalize: label c has one value (0.5) in all of the training data",
    ),
    "series": ({"series": "a"}, TABLE, "dataset.time is required: set it to the column of times of"),
    "a long table": ({"long": ["a", "b"]}, TABLE, "dataset.time is required: set it to the column of times of"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named(mistake, tmp_path):
    changes, text, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=re.escape(message.format(path=tmp_path / "mine.csv"))) as caught:
        rows_of(tmp_path, text, **changes)
    assert "\n" not in str(caught.value)


def test_a_column_of_one_value_cannot_be_scaled(tmp_path):
    text = "a,b\n" + "".join(f"{row},7\n" for row in range(20))
    with pytest.raises(ValueError, match=r"column b has one value \(7\) in all of the training data"):
        rows_of(tmp_path, text)
    assert len(rows_of(tmp_path, text, normalize=False).splits["train"]["inputs"]) == 14


def test_old_faithful_is_the_true_one():
    dataset = faithful(**{**dataset_keys("faithful"), "normalize": False})
    everything = torch.cat([split["inputs"] for split in dataset.splits.values()]).double()
    assert dataset.offers["column_names"] == ("eruptions", "waiting")
    assert tuple(everything.shape) == (272, 2)
    assert everything.mean(0).tolist() == pytest.approx([3.487783, 70.897059], abs=1e-5)
    assert everything.std(0).tolist() == pytest.approx([1.141371, 13.594974], abs=1e-5)
    assert [everything.min(0).values.tolist(), everything.max(0).values.tolist()] == [
        pytest.approx([1.6, 43]),
        pytest.approx([5.1, 96]),
    ]
    assert torch.corrcoef(everything.T)[0, 1].item() == pytest.approx(0.9008112, abs=1e-6)
