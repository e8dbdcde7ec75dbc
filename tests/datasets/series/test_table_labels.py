"""What is to be told of each series of a user's own table."""

from pathlib import Path

import pytest
import torch
from shipped import dataset_keys

from node_cli.datasets.series.own_table import own_table

CELLS = {  # the labels of eight series of two rows each; None: a row leaves it out
    "words": ["sick", "well", "sick", "well", "well", "sick", "well", "sick"],
    "whole": ["10", "2", "2", "10", "2", "10", "10", "2"],
    "floats": ["1.5", "2", "3.25", "4", "5", "6", "7", "8.125"],
    "mixed": ["sick", "2", "2", "sick", "2", "sick", "sick", "2"],
}


def made(folder, *columns, label=None, **changes):
    """A table of eight series s0, s1, ... with columns of labels, each given in the second row of a series alone."""
    path = Path(folder) / "mine.csv"
    rows = [",".join(["who", "day", "a", *(f"l{k}" for k in range(len(columns)))])]
    for k in range(8):
        rows.append(f"s{k},0,{k}" + "," * len(columns))
        rows.append(",".join([f"s{k}", "1", str(k * k), *(column[k] for column in columns)]))
    path.write_text("\n".join(rows))
    keys = {"path": str(path), "time": "day", "series": "who", "label": label, "columns": ["a"], "split": "series"}
    return own_table(**{**dataset_keys("csv"), **keys, "val": 2, "test": 2, **changes})


def labels(dataset):
    """By the name of the series."""
    return {
        name: target
        for split, names in dataset.sample_names.items()
        for name, target in zip(names, dataset.splits[split]["targets"].tolist(), strict=True)
    }


@pytest.mark.parametrize(
    ("kind", "names"), [("words", ("sick", "well")), ("whole", ("2", "10")), ("mixed", ("2", "sick"))]
)
def test_words_and_whole_numbers_are_classes(kind, names, tmp_path):
    dataset = made(tmp_path, CELLS[kind], label="l0")
    assert dataset.offers["class_names"] == names
    assert dataset.offers["class_counts"] == (2, 2)
    assert labels(dataset) == {f"s{k}": names.index(cell) for k, cell in enumerate(CELLS[kind])}
    hint = "; to read whole numbers as values, write dataset.label=[NAME]" if kind == "whole" else ""
    assert dataset.lacks == {"target_names": f"the labels are classes: take task=classification{hint}"}


@pytest.mark.parametrize(
    ("kinds", "label"),
    [(["floats"], "l0"), (["whole"], ["l0"]), (["whole", "floats"], ["l1", "l0"])],
)
def test_other_numbers_and_those_of_a_list_are_values(kinds, label, tmp_path):
    dataset = made(tmp_path, *[CELLS[kind] for kind in kinds], label=label)
    columns = [label] if isinstance(label, str) else label
    assert dataset.offers["target_names"] == tuple(columns)
    assert "class_names" not in dataset.offers
    found = {
        name: dataset.offers["target_scaling"].undo(torch.tensor([row])).flatten().tolist()
        for name, row in labels(dataset).items()
    }
    for k in range(8):
        expected = [float(CELLS[kinds[int(column[1])]][k]) for column in columns]
        assert found[f"s{k}"] == pytest.approx(expected, rel=1e-6)


def test_labels_belong_to_what_was_read(tmp_path):
    digests = {
        made(tmp_path, *columns, label=label).digest
        for columns, label in [
            ([CELLS["words"]], "l0"),
            ([CELLS["whole"]], "l0"),
            ([CELLS["whole"]], ["l0"]),
            ([CELLS["whole"]], None),
        ]
    }
    assert len(digests) == 4


MISTAKES = [
    ({"label": "kind"}, "dataset.label: {path} has no column kind: its columns are who, day, a, l0"),
    ({"label": "day"}, "dataset.label: column day is already in dataset.time"),
    ({"label": []}, "label must name a column, or a list of columns of numbers, or be null, got []"),
    ({"series": None, "split": "time"}, "label=l0 needs dataset.series, the column that says which series a row"),
    ({"time": None}, "dataset.time is required: set it to the column of times of {path}"),
    ({"split": "time"}, "label needs dataset.split=series: with split=time every series is in every split"),
    ({"label": ["l0"]}, "dataset.path: {path}, row 3, column l0: 'sick' is not a number"),
    ({"cells": ["x"] * 8}, "dataset.label: column l0 of {path} has one class, x; at least 2 are needed"),
    ({"cells": [*"abcdefg", ""]}, "dataset.path: {path}, row 16, column l0: the label is missing in the whole series"),
    ({"cells": [*"abcdefgh"]}, "dataset: class "),
    (
        {"cells": [*"abcabc", "1.5", "2"]},
        "dataset.path: {path}, row 15, column l0: '1.5' is no whole number, and 'a' in row 3 is a word; labels are wor",
    ),
    ({"cells": ["1e999", *"abcabca"]}, "dataset.path: {path}, row 3, column l0: '1e999' is too large"),
    ({"cells": ["a" * 101, *"abcabca"]}, "dataset.path: {path}, row 3, column l0: the name has 101 characters"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_each_mistake_is_one_line(change, message, tmp_path):
    given = {"label": "l0", **change}
    cells = given.pop("cells", CELLS["words"])
    with pytest.raises(ValueError) as error:
        made(tmp_path, cells, **given)
    assert str(error.value).startswith(message.format(path=tmp_path / "mine.csv"))
    assert "\n" not in str(error.value)


def test_a_label_that_changes_within_a_series_is_named(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("who,day,a,kind\nx,0,1,b\nx,1,2,c\ny,0,1,b\ny,1,2,b\n")
    keys = {"path": str(path), "time": "day", "series": "who", "label": "kind"}
    with pytest.raises(ValueError, match="row 3, column kind: it is 'c', and 'b' in row 2; a label must not change in"):
        own_table(**{**dataset_keys("csv"), **keys})
