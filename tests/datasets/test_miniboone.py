"""MiniBooNE, on a small file of its true format."""

import numpy as np
import pytest
from true_formats import write_events

from node_cli.datasets.miniboone import miniboone


def test_the_signal_without_failures_and_values_that_come_back(tmp_path):
    write_events(tmp_path / "miniboone")
    dataset = miniboone(str(tmp_path), normalize=False)
    assert dataset.offers["column_names"] == ("c1", "c2", "c3", "c5", "c6")
    assert {name: len(split["inputs"]) for name, split in dataset.splits.items()} == {"train": 49, "val": 5, "test": 5}
    table = np.loadtxt(tmp_path / "miniboone" / "MiniBooNE_PID.txt", skiprows=1)
    np.testing.assert_allclose(dataset.splits["test"]["inputs"], table[55:60][:, [0, 1, 2, 4, 5]], rtol=1e-6)
    scaled = miniboone(str(tmp_path), normalize=True).splits["train"]["inputs"]
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(0, correction=0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3 1\n1 2\n3 4\n", "has 2 events, its first row says 4"),
        ("2 0\n1 2\nnan 3\n", "holds numbers that are NaN or infinite"),
        ("three\n1 2\n", "must have two counts, and then a row of numbers for each event"),
        ("2 0\n1 2\n1 x\n", "must have two counts, and then a row of numbers for each event"),
    ],
)
def test_what_is_no_such_file_is_refused(text, message, tmp_path):
    (tmp_path / "miniboone").mkdir()
    (tmp_path / "miniboone" / "MiniBooNE_PID.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        miniboone(str(tmp_path), normalize=True)


def test_one_line_says_where_the_file_is_to_be_had(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        miniboone(str(tmp_path), normalize=True)
    told = str(error.value)
    assert told.startswith(f"dataset.data_dir: {tmp_path}/miniboone/MiniBooNE_PID.txt is not available, and is")
    assert "https://archive.ics.uci.edu/dataset/199/miniboone+particle+identification" in told
    assert "\n" not in told
