"""A user's own table: what is read of it, and each mistake in one line."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from shipped import dataset_keys

from node_cli.datasets.series.own_table import own_table

WIDE = """patient,day,a,b,dose,age
p1,0,1,10,0,50
p1,1,2,,1,50
p1,2.5,3,30,1,
p1,4,4,40,0,50
p2,0,5,NA,0,61.5
p2,1,6,60,2,61.5
p2,7,7,nan,2,61.5
p2,9,9,80,2,61.5
"""
LONG = """day,what,value
0,a,1
1,a,2
4,a,4
0,b,10
2.5,b,30
4,b,40
"""
EXACT = {"val": 0, "test": 0, "normalize": False, "time_scale": 1.0}
OF_PATIENTS = {"series": "patient", "time": "day", "controls": ["dose"], "statics": ["age"]}


def made(folder, text, **changes):
    path = Path(folder) / "mine.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return own_table(**{**dataset_keys("csv"), "path": str(path), "time": "day", **changes})


def observed(dataset, split="train"):
    """Values as they were written, NaN where they are missing or padding."""
    batch = dataset.splits[split]
    return batch["values"].where(batch["mask"], math.nan).tolist()


def same(values, expected):
    written = values.tolist() if isinstance(values, torch.Tensor) else values
    np.testing.assert_array_equal(np.array(written), np.array(expected, dtype=float))


def test_a_wide_table_of_several_series(tmp_path):
    dataset = made(tmp_path, WIDE, **OF_PATIENTS, **EXACT)
    nan = math.nan
    same(observed(dataset), [[[1, 10], [2, nan], [3, 30], [4, 40]], [[5, nan], [6, 60], [7, nan], [9, 80]]])
    train, offers = dataset.splits["train"], dataset.offers
    same(train["times"], [[0, 1, 2.5, 4], [0, 1, 7, 9]])
    same(train["controls"][..., 0], [[0, 1, 1, 0], [0, 2, 2, 2]])
    same(train["statics"], [[50], [61.5]])
    assert (offers["channel_names"], offers["control_names"], offers["static_names"]) == (
        ("a", "b"),
        ("dose",),
        ("age",),
    )
    assert (offers["time_name"], offers["time_unit"], offers["calendar"], offers["num_starts"]) == ("day", "", "", 2)


def test_chosen_columns_in_their_order(tmp_path):
    dataset = made(tmp_path, WIDE, columns=["b", "a"], series="patient", time_unit="day", positions=["a", "b"], **EXACT)
    offers = dataset.offers
    assert (offers["channel_names"], offers["position_channels"], offers["time_unit"]) == (("b", "a"), (1, 0), "day")
    assert "controls" not in dataset.splits["train"]
    assert observed(dataset)[0][0] == [10, 1]


def test_a_long_table(tmp_path):
    nan = math.nan
    dataset = made(tmp_path, LONG, long=["what", "value"], **EXACT)
    same(observed(dataset), [[[1, 10], [2, nan], [nan, 30], [4, 40]]])
    assert dataset.offers["channel_names"] == ("a", "b")
    only = made(tmp_path, LONG, long=["what", "value"], columns=["b"], **EXACT)
    same(only.splits["train"]["times"], [[0, 2.5, 4]])


def test_a_long_table_with_series_and_controls(tmp_path):
    lines = WIDE.splitlines()[1:]
    rows = [line.split(",") for line in lines]
    long = ["patient,day,what,value,dose,age"]
    for column, name in ((2, "a"), (3, "b")):
        long += [f"{row[0]},{row[1]},{name},{row[column]},{row[4]},{row[5]}" for row in rows]
    one = made(tmp_path, WIDE, **OF_PATIENTS, **EXACT)
    other = made(tmp_path, "\n".join(long), **OF_PATIENTS, long=["what", "value"], **EXACT)
    assert other.offers == one.offers
    assert other.digest == one.digest
    for name, tensor in one.splits["train"].items():
        assert torch.equal(other.splits["train"][name], tensor)


@pytest.mark.parametrize(
    ("first", "days"),
    [
        ("2024-05-01", [0, 1, 31]),
        ("2024-05-01T12:00", [0.5, 1, 31]),
        ("2024-05-01 06:00:00.5", [0.25 + 0.5 / 86400, 1, 31]),
        ("2024-05", [0, 1, 31]),
    ],
)
def test_dates_are_days(first, days, tmp_path):
    dataset = made(tmp_path, f"day;a\n{first};1\n2024-05-02;2\n2024-06-01;3\n", **EXACT)
    offers = dataset.offers
    times = offers["units"].times(dataset.splits["train"]["times"])[0]
    start = np.datetime64("2024-05-01").astype(int)
    torch.testing.assert_close(times - start, torch.tensor(days, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (offers["calendar"], offers["time_unit"]) == ("days", "day")


def test_time_zones_are_counted(tmp_path):
    dataset = made(
        tmp_path, "day,a\n2024-05-01T00:00Z,1\n2024-05-01T03:00+02:00,2\n2024-05-01T03:00-02:00,3\n", **EXACT
    )
    same((dataset.splits["train"]["times"] * 24).round(decimals=6), [[0, 1, 5]])
    assert dataset.offers["calendar"] == "days in UTC"


@pytest.mark.parametrize(
    "text",
    [
        b"day,a\n0,1\n1,2\n2,4\n",
        b"\xef\xbb\xbfday,a\r\n0,1\r\n1,2\r\n\r\n2,4",
        b"\n day ;a\n0; 1\n1;2\n\n2;4e0\n",
        b"day\ta\n0\t+1\n1\t2.\n2\t4\n",
        b'"day"|"a"\n"0"|1\n1|2\n2|4\n',
    ],
    ids=["commas", "with a BOM", "semicolons", "tabs", "bars"],
)
def test_files_as_they_come(text, tmp_path):
    same(observed(made(tmp_path, text, **EXACT)), [[[1], [2], [4]]])


def test_a_delimiter_may_be_named_where_the_header_has_several(tmp_path):
    dataset = made(tmp_path, '"t, s";a\n0;1\n1;2\n', time="t, s", delimiter="semicolon", **EXACT)
    same(observed(dataset), [[[1], [2]]])


def test_rows_without_values_extend_the_controls_into_the_future(tmp_path):
    text = "day,a,dose\n0,1,0\n1,2,1\n2,3,0\n3,4,1\n4,,1\n5,,1\n"
    dataset = made(tmp_path, text, controls=["dose"], val=1, test=3, normalize=False, time_scale=1.0)
    test = dataset.splits["test"]
    assert test["controls"].flatten().tolist() == [0, 1, 0, 1, 1, 1]
    assert test["target"].flatten().tolist() == [False, False, False, True, False, False]


HEAD = "day,a,b\n"
LINES = "0,1,2\n1,2,3\n2,3,5\n"
DOSED = "day,what,value,dose\n0,a,1,1\n1,a,2,1\n0,b,1,{}\n1,b,2,1\n"
MISTAKES = {
    "text in a number": (HEAD + "0,1,2\n1,high,3\n", {}, "{path}, row 3, column a: 'high' is not a number"),
    "blank lines before it": ("\n \n" + HEAD + "\n0,1,2\n1,x,3\n", {}, "{path}, row 6, column a: 'x' is not a number"),
    "a decimal comma": (
        "day;a\n0;1\n1;2,5\n",
        {},
        "{path}, row 3, column a: '2,5' is not a number; write a decimal po",
    ),
    "a number of Python": (HEAD + "0,1,2\n1,1_000,3\n", {}, "{path}, row 3, column a: '1_000' is not a number"),
    "infinity": (HEAD + "0,1,2\n1,inf,3\n", {}, "{path}, row 3, column a: 'inf' is not a number"),
    "out of range": (HEAD + "0,1,2\n1,1e999,3\n", {}, "{path}, row 3, column a: '1e999' is too large"),
    "a time twice": (HEAD + LINES + "2,9,9\n", {}, "{path}, row 5, column day: the time '2' is there already in row 4"),
    "unsorted times": (
        HEAD + LINES + "1.5,9,9\n",
        {},
        "{path}, row 5, column day: the time '1.5' is before that of row 4",
    ),
    "a missing time": (HEAD + LINES + ",9,9\n", {}, "{path}, row 5, column day: the time is missing"),
    "a missing date": ("day,a\n2024-01-01,1\nNA,1\n", {}, "{path}, row 3, column day: the time is missing"),
    "another date": (
        "day,a\n31/05/2024,1\n",
        {},
        "{path}, row 2, column day: '31/05/2024' is neither a number nor a dat",
    ),
    "no such day": (
        "day,a\n2023-02-28,1\n2023-02-29,1\n",
        {},
        "{path}, row 3, column day: '2023-02-29' is neither a num",
    ),
    "a date among numbers": (HEAD + LINES + "2024-01-01,1,1\n", {}, "row 5, column day: '2024-01-01' is not a number"),
    "a compact date": (
        "day,a\n20240131,1\n20240201,1\n",
        {},
        "row 2, column day: '20240131' looks like a date; write it as",
    ),
    "half the zones": (
        "day,a\n2024-01-01T00:00Z,1\n2024-01-02,1\n",
        {},
        "'2024-01-02' has no time zone, others have one",
    ),
    "unknown time": (
        HEAD + LINES,
        {"time": "dya"},
        "dataset.time: {path} has no column dya: did you mean day? its columns",
    ),
    "unknown column": (
        HEAD + LINES,
        {"columns": ["c"]},
        "dataset.columns: {path} has no column c: its columns are day, a,",
    ),
    "unknown series": (
        HEAD + LINES,
        {"series": "who"},
        "dataset.series: {path} has no column who: its columns are day, a",
    ),
    "unknown variable": (
        LONG,
        {"long": ["what", "value"], "columns": ["c"]},
        "column what of {path} has no c: it has a, b",
    ),
    "a column twice": (HEAD + LINES, {"controls": ["day"]}, "dataset.controls: column day is already in dataset.time"),
    "no values": ("day\n0\n1\n", {"delimiter": "comma"}, "dataset.columns: {path} has no column of values beside day"),
    "one point": (HEAD + "0,1,2\n", {}, "{path}: series of the file has 1 time (row 2); at least 2 are needed"),
    "one of a series": (
        "day,a,p\n0,1,x\n1,2,x\n0,3,y\n",
        {"series": "p"},
        "{path}: series y has 1 time (row 4); at least",
    ),
    "no series": ("day,a,p\n0,1,x\n1,2,\n", {"series": "p"}, "{path}, row 3, column p: the name is missing"),
    "an empty column": (
        "day,a,b\n0,1,\n1,2,NA\n",
        {},
        "dataset.columns: {path} has no value in column b; leave it out",
    ),
    "a missing control": (
        HEAD + "0,1,2\n1,2,\n",
        {"controls": ["b"]},
        "{path}, row 3, column b: it is missing, and a control",
    ),
    "two controls": (
        DOSED.format(3),
        {"long": ["what", "value"], "controls": ["dose"]},
        "{path}, row 4, column dose: it is '3', and '1' at the same time in row 2",
    ),
    "a missing variable": (
        "day,what,value\n0,a,1\n1,,2\n",
        {"long": ["what", "value"]},
        "{path}, row 3, column what: the name is missing",
    ),
    "a static that changes": (
        HEAD + LINES,
        {"statics": ["b"]},
        "{path}, row 3, column b: it is 3, and 2 in row 2; a static",
    ),
    "a missing static": (
        "day,a,b\n0,1,\n1,2,\n",
        {"statics": ["b"]},
        "{path}, row 2, column b: it is missing in the whole",
    ),
    "a long window": (
        HEAD + LINES * 1,
        {"window": 9, "val": 0, "test": 0},
        "no window fits into train; the longest series",
    ),
    "nothing for training": (
        HEAD + LINES,
        {"val": 1, "test": 1},
        "series {path} has 3 times, which leaves 1 for training",
    ),
    "no series for training": (
        HEAD + LINES,
        {"split": "series", "val": 0, "test": 1},
        "there are 1 series, which leaves no",
    ),
    "a fraction of too little": (
        HEAD + LINES,
        {"val": 0.1},
        "dataset.val=0.1 of 3 times of series {path} is none: give",
    ),
    "not positive": (
        HEAD + "0,1,2\n1,2,0\n2,3,4\n",
        {"log": True, "val": 0, "test": 0},
        "needs values above 0: series {path}, row 3, column b has 0; set dataset.log=false",
    ),
    "not positive in a long table": (
        LONG.replace("4,b,40", "4,b,-4"),
        {"long": ["what", "value"], "log": True, "val": 0, "test": 0},
        "series {path}, row 7, column b has -4; set dataset.log=false",
    ),
    "a constant": (
        HEAD + "0,1,2\n1,1,3\n2,1,4\n",
        {"val": 0, "test": 1},
        "column a has one value (1) in all of the training",
    ),
    "too large": (
        HEAD + "0,1,2\n1,1e60,3\n",
        {**EXACT},
        "dataset.normalize: the values are too large for float32; give",
    ),
    "not UTF-8": (
        HEAD.encode() + b"0,1,2\n1,\xff,2\n",
        {},
        "{path}, row 3 is not UTF-8 at byte 3; save the table as UTF-8",
    ),
    "UTF-16": ((HEAD + LINES).encode("utf-16"), {}, "{path}, row 1 is not UTF-8 at byte 1; save the table as UTF-8"),
    "nothing": ("", {}, "dataset.path: {path} is empty; it must have a header and rows"),
    "blank lines": ("\n\n", {}, "dataset.path: {path} is empty; it must have a header and rows"),
    "a header alone": (HEAD, {}, "dataset.path: {path} has a header and no rows"),
    "a name twice": ("day,a,a\n0,1,2\n", {}, "dataset.path: {path} has two columns a: 2 and 3"),
    "no name": (
        ",day,a\n0,1,2\n",
        {},
        "{path}, column 1: the name is missing in the header (pandas: to_csv(index=False))",
    ),
    "an unprintable name": (
        "day,a\x1b[2J\n0,1\n",
        {},
        "{path}, column 2: the name 'a\\x1b[2J' holds what cannot be printed",
    ),
    "a long name": (
        "day," + "a" * 101 + "\n0,1\n",
        {},
        "{path}, column 2: the name has 101 characters, at most 100 are",
    ),
    "a series in two lines": (
        'day,a,p\n0,1,"x\ny"\n',
        {"series": "p"},
        "{path}, row 3, column p: the name 'x\\ny' holds",
    ),
    "times far apart": (
        "day,a\n-1e300,1\n1,2\n2,3\n",
        EXACT,
        "are too far apart, or too close to each other, to be told",
    ),
    "the header again": (HEAD + LINES + HEAD, {}, "{path}, row 5 is the header again; take it out"),
    "a short row": (HEAD + LINES + "3,4\n", {}, "{path}, row 5 has 2 cells, the header has 3: a cell that holds the"),
    "an open quote": (HEAD + '0,"1,2\n', {}, "{path}, row 2: unexpected end of data"),
    "a long line": (
        HEAD + "0,1,2" + " " * (1 << 20),
        {},
        "{path}, row 2 is longer than 1,048,576 bytes; is it a table?",
    ),
    "a long cell": (HEAD + "0,1," + "2" * 200_000, {}, "{path}, row 2: field larger than field limit (131072)"),
    "two delimiters": (
        "day,a;b\n0,1\n",
        {},
        "the header of {path} has comma and semicolon: set dataset.delimiter to the",
    ),
    "no delimiter": ("day\n0\n", {}, "dataset.path: the header of {path} has none of comma, semicolon, tab, bar: set"),
    "another delimiter": (
        HEAD,
        {"delimiter": ","},
        "delimiter must be one of comma, semicolon, tab, bar, or null, got",
    ),
    "a delimiter that is not there": (
        HEAD + LINES,
        {"delimiter": "semicolon"},
        "dataset.delimiter=semicolon: the header of {path} has no semicolon, it has comma: set that, or null",
    ),
    "a decimal comma in a time": (
        "day;a\n0,5;1\n1;2\n",
        {},
        "'0,5' is neither a number nor a date such as 2024-05-31 or 2024-05-31T13:30; write a decimal point",
    ),
    "times of too many digits": (
        "ns,a\n1700000000000000000,1\n1700000000000000500,2\n",
        {"time": "ns"},
        "{path}, row 3, column ns: '1700000000000000500' has too many digits for a time; count from a later start",
    ),
    "half of long": (LONG, {"long": ["what"]}, "long must be the column of variables and that of values, or null, got"),
    "a unit of dates": (
        "day,a\n2024-01,1\n2024-02,2\n",
        {"time_unit": "month"},
        "time_unit must be day, or null, as dates",
    ),
    "an empty unit": (HEAD + LINES, {"time_unit": ""}, "time_unit must be a word such as day, or null, got ''"),
    "one position": (
        HEAD + LINES,
        {"positions": ["a"]},
        "positions must be the latitude and the longitude among a, b, got",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_one_line(mistake, tmp_path):
    text, changes, message = MISTAKES[mistake]
    with pytest.raises(ValueError) as error:
        made(tmp_path, text, **changes)
    assert message.format(path=tmp_path / "mine.csv") in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400 + 2 * len(str(tmp_path))


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind, message in (
        (tmp_path, ValueError, "is a folder; give the file itself"),
        (tmp_path / "none.csv", FileNotFoundError, f"dataset.path: there is no file {tmp_path / 'none.csv'}"),
        (tmp_path / "pipe", FileNotFoundError, "dataset.path: there is no file"),
        (tmp_path / ("x" * 300), ValueError, "cannot be read (File name too long)"),
    ):
        with pytest.raises(kind) as error:
            made(tmp_path, HEAD, path=str(path))
        assert message in str(error.value)
