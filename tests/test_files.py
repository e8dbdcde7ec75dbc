import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from node_cli.files import (
    TEMPORARY,
    GrowingFile,
    UnwrittenError,
    append,
    closed_at_the_end,
    cut_down,
    kind_of,
    link_whole,
    read_bytes,
    read_end,
    read_text,
    remove_unfinished,
    write_whole,
)


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


def test_writers_of_one_folder_do_not_meet(tmp_path):
    """Two reports, say: each file gets what was written to it."""
    parts = {name: name.encode() * 20_000 for name in ("one", "two", "three")}

    def write(name):
        for _ in range(30):
            write_whole(tmp_path / name, parts[name])
            assert (tmp_path / name).read_bytes() == parts[name]

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, parts))
    assert sorted(os.listdir(tmp_path)) == sorted(parts)


def test_a_new_name_is_on_the_disk_before_the_writer_goes_on(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    write_whole(tmp_path / "a", b"a")
    link_whole(tmp_path / "a", tmp_path / "b")
    assert [Path(path).name.partition("-")[0] for path in synced] == [TEMPORARY, tmp_path.name, tmp_path.name]


def test_what_a_killed_writer_left_is_removed_where_nobody_else_writes(tmp_path):
    for name in (f"{TEMPORARY}-1234", TEMPORARY, "whole"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["whole"]


WRITERS = {
    "write_whole": lambda path: write_whole(path, b"new"),
    "link_whole": lambda path: link_whole(Path(__file__), path),
    "append": lambda path: append(path, b"theirs"),
    "cut_down": lambda path: cut_down(path, b""),
    "GrowingFile": GrowingFile,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("a link", "it is a link"),
        ("a folder", "Is a directory"),
        ("a device, a pipe or a socket", "it is no regular file"),
    ],
)
def test_nothing_is_written_through_a_link_or_to_what_is_no_file(kind, told, writer, tmp_path):
    path, victim = tmp_path / "path", tmp_path / "victim"
    victim.write_text("my thesis")
    if kind == "a link":
        path.symlink_to(victim)
    elif kind == "a folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(OSError, match=told):
        WRITERS[writer](path)
    assert victim.read_text() == "my thesis"
    assert kind_of(path) == kind
    assert sorted(os.listdir(tmp_path)) == ["path", "victim"]


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
    with pytest.raises(FileNotFoundError):
        GrowingFile(tmp_path / "nowhere" / "log")


class Unwritten:
    """A file whose end cannot be written."""

    def close(self):
        raise UnwrittenError("the end is missing")


def test_closing_tells_what_is_unwritten_unless_something_else_went_wrong():
    with pytest.raises(UnwrittenError, match="the end is missing"), closed_at_the_end(Unwritten().close):
        pass
    with pytest.raises(ValueError, match="the loss is not finite"), closed_at_the_end(Unwritten().close):
        raise ValueError("the loss is not finite")


def links_of(tmp_path):
    """A folder of someone else's beside a file that is none of theirs."""
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "theirs"
    (folder / "below").mkdir(parents=True)
    (folder / "own").write_text("own")
    (folder / "to_own").symlink_to("own")
    (folder / "out").symlink_to("../secret")
    (folder / "up").symlink_to("..")
    (folder / "nowhere").symlink_to("not_there")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.parametrize(
    ("name", "why"),
    {
        "out": "it is a link that leads out of",
        "up/secret": "it is a link that leads out of",
        "../secret": "it is a link that leads out of",
        "pipe": "it is no regular file",
        "below": "Is a directory",
        "nowhere": "No such file or directory",
        "not_there": "No such file or directory",
        "a" * 300: "File name too long",
    }.items(),
)
def test_what_is_no_file_of_the_folder_is_not_read(name, why, tmp_path):
    folder = links_of(tmp_path)
    for read in (read_bytes, read_end):
        with pytest.raises(OSError, match=r".") as caught:
            read(folder / name, 100, inside=folder)
        assert caught.value.strerror.startswith(why)


def test_a_device_is_not_opened():
    with pytest.raises(OSError, match="no regular file"):
        read_bytes(Path("/dev/zero"), 100)


def test_what_lies_in_the_folder_is_read(tmp_path):
    folder = links_of(tmp_path)
    (tmp_path / "alias").symlink_to("theirs")
    for way in (folder, tmp_path / "alias"):
        assert read_text(way / "to_own", 3, inside=way) == "own"
        assert read_end(way / "own", 2, inside=way) == b"wn"


def test_a_file_without_end_is_read_to_its_limit():
    """Its size is said to be 0, and what it holds is not."""
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_bytes(Path("/proc/self/maps"), 10)


def test_a_larger_file_is_not_read(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="it is larger than 1,048,576 bytes"):
        read_text(tmp_path / "large")


@pytest.mark.parametrize(
    ("name", "why"), {"out": "it is a link", "nowhere": "it is a link", "pipe": "no regular"}.items()
)
def test_nothing_is_appended_through_a_link_or_to_a_pipe(name, why, tmp_path):
    folder = links_of(tmp_path)
    with pytest.raises(OSError, match=why):
        GrowingFile(folder / name)
    assert not (folder / "not_there").exists()


def test_nothing_is_cut_through_a_link(tmp_path):
    folder = links_of(tmp_path)
    with pytest.raises(OSError, match="it is a link"):
        cut_down(folder / "out", b"")
    assert (tmp_path / "secret").read_text() == "secret"
