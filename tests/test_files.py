import os
import subprocess
import sys

import pytest

from node_cli.files import GrowingFile, UnwrittenError, closed_at_the_end, cut_down, write_whole


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "summary.json"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "text, which a file of bytes refuses half-way")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_could_not_be_put_in_place_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_whole(tmp_path / "summary.json", "text")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"one\n", b"one\ntwo\n", b"two\n"])
def test_a_file_is_cut_down_to_any_part_of_it(content, tmp_path):
    (tmp_path / "log").write_bytes(b"one\ntwo\n")
    cut_down(tmp_path / "log", content)
    assert (tmp_path / "log").read_bytes() == content
    assert os.listdir(tmp_path) == ["log"]


def in_a_child(tmp_path, code, *words):
    """What `code` prints; `limit(size)` bounds the size of its files, as a full disk does, in the midst of a write."""
    command = [sys.executable, "-c", CHILD + code, str(tmp_path / "log"), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


CHILD = """
import logging, resource, sys
from pathlib import Path
from node_cli.files import GrowingFile, UnwrittenError, cut_down
path = Path(sys.argv[1])
logging.basicConfig(stream=sys.stdout, format="%(message)s")

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def write(file, numbers):
    for number in numbers:
        file.write(b"line %d\\n" % number)
"""
LINES = [f"line {number}" for number in range(1000)]


def test_a_full_disk_delays_and_loses_nothing(tmp_path):
    said = in_a_child(
        tmp_path,
        """
file = GrowingFile(path)
for first, size in enumerate([1001, 1001, 1003, 5000, resource.RLIM_INFINITY]):
    limit(size)
    write(file, range(200 * first, 200 * first + 200))
    try:
        file.sync()
    except UnwrittenError as error:
        print(path.stat().st_size, error)
    else:
        print("synced", path.stat().st_size)
file.close()
""",
    )
    path = tmp_path / "log"
    assert path.read_text().splitlines() == LINES
    refused = f"{path} cannot be written (File too large): what belongs there is kept in memory until it can"
    assert said.splitlines() == [
        refused,
        f"1001 {path}: 689 bytes could not be written: File too large",
        f"1001 {path}: 2,489 bytes could not be written: File too large",
        f"1003 {path}: 4,287 bytes could not be written: File too large",
        f"5000 {path}: 2,090 bytes could not be written: File too large",
        f"{path} can be written again, and nothing is missing in it",
        "synced 8890",
    ]


@pytest.mark.parametrize("method", ["sync", "close"])
def test_what_waits_is_written_without_anything_new(method, tmp_path):
    in_a_child(
        tmp_path,
        """
file = GrowingFile(path)
limit(10)
write(file, range(3))
limit(resource.RLIM_INFINITY)
getattr(file, sys.argv[2])()
""",
        method,
    )
    assert (tmp_path / "log").read_bytes() == b"line 0\nline 1\nline 2\n"


def test_what_is_left_at_the_end_is_an_error(tmp_path):
    said = in_a_child(
        tmp_path,
        """
file = GrowingFile(path)
limit(10)
write(file, range(3))
try:
    file.close()
except UnwrittenError as error:
    print(error)
limit(resource.RLIM_INFINITY)
""",
    )
    assert said.splitlines()[1:] == [f"{tmp_path / 'log'}: 11 bytes could not be written: File too large"]
    assert (tmp_path / "log").read_bytes() == b"line 0\nlin"


def test_the_end_of_a_file_is_cut_off_where_there_is_no_room(tmp_path):
    in_a_child(tmp_path, 'path.write_bytes(b"one\\ntwo\\ncut sh")\nlimit(0)\ncut_down(path, b"one\\ntwo\\n")')
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path):
    with pytest.raises(IsADirectoryError):
        GrowingFile(tmp_path)


class Unwritten:
    """A file whose end cannot be written."""

    def close(self):
        raise UnwrittenError("the end is missing")


def test_closing_tells_what_is_unwritten_unless_something_else_went_wrong():
    with pytest.raises(UnwrittenError, match="the end is missing"), closed_at_the_end(Unwritten()):
        pass
    with pytest.raises(ValueError, match="the loss is not finite"), closed_at_the_end(Unwritten()):
        raise ValueError("the loss is not finite")
