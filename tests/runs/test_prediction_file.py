import csv

import numpy as np
import pytest

from node_cli.runs.prediction_file import write_predictions

BATCHES = [
    {
        "class": np.array(["cat", ""]),
        "probability": np.array([[0.1, 0.9], [np.nan, np.nan]], np.float32),
        "state": np.arange(8, dtype=np.float64).reshape(2, 2, 2) / 3,
        "failed": np.array([False, True]),
    },
    {
        "class": np.array(["dog"], "<U3"),
        "probability": np.array([[1e-30, 1.0]], np.float32),
        "state": np.ones((1, 2, 2)),
        "failed": np.array([False]),
    },
]
BATCHES[0]["class"] = BATCHES[0]["class"].astype("<U3")
NAMES = {"probability": ["a,b", "dog"], "absent": ["x"]}


def test_csv_has_a_column_for_each_value_and_loses_no_digit(tmp_path):
    assert write_predictions(tmp_path / "out.csv", iter(BATCHES), NAMES) == 3
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    states = [f"state_{i}_{j}" for i in range(2) for j in range(2)]
    assert header == ["class", "probability_a,b", "probability_dog", *states, "failed"]
    assert rows[0][:3] == ["cat", "0.1", "0.9"]
    assert rows[1][:3] == ["", "nan", "nan"]
    assert [row[-1] for row in rows] == ["false", "true", "false"]
    assert np.float32(rows[2][1]) == np.float32(1e-30)
    assert [float(value) for value in rows[1][3:7]] == BATCHES[0]["state"][1].flatten().tolist()


def test_npz_has_the_arrays_and_the_names_of_columns(tmp_path):
    assert write_predictions(tmp_path / "out.npz", iter(BATCHES), NAMES) == 3
    with np.load(tmp_path / "out.npz") as found:
        assert sorted(found.files) == ["class", "failed", "probability", "probability_columns", "state"]
        for name in BATCHES[0]:
            expected = np.concatenate([batch[name] for batch in BATCHES])
            assert found[name].dtype == expected.dtype
            np.testing.assert_array_equal(found[name], expected)
        assert found["probability_columns"].tolist() == ["a,b", "dog"]


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_what_fails_half_way_leaves_nothing_new(ending, tmp_path):
    def failing():
        yield BATCHES[0]
        raise RuntimeError

    path = tmp_path / f"out.{ending}"
    for content in (None, b"before"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RuntimeError):
            write_predictions(path, failing(), {})
        assert [other.name for other in tmp_path.iterdir()] == ([] if content is None else [path.name])
        assert content is None or path.read_bytes() == content
