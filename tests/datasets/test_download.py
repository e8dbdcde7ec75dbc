import fcntl
import hashlib
import os
import re
import socket
import struct
import subprocess
import sys
import termios
import time
from types import SimpleNamespace

import pytest

from node_cli.datasets import download
from node_cli.datasets.download import RemoteFile, fetch, fetch_all

CONTENT = bytes(range(256)) * 1000
FILE = RemoteFile("numbers.bin", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
FETCH = """
import sys
from pathlib import Path
from node_cli.datasets.download import RemoteFile, fetch
name, sha256, size, folder, mirror = sys.argv[1:]
fetch(RemoteFile(name, sha256, int(size)), Path(folder), [mirror])
"""


def start_fetching(folder, mirror, stderr=None) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", FETCH, *map(str, FILE), str(folder), mirror], stderr=stderr)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def files_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_good_file_arrives_once_and_alone(server, tmp_path, capfd):
    server.files["/a/numbers.bin"] = CONTENT
    folder = tmp_path / "new" / "folder"
    path = fetch(FILE, folder, [server.address("a")])
    assert path == folder / "numbers.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(FILE, folder, [server.address("a")]) == path
    assert server.requests == {"/a/numbers.bin": 1}
    assert files_in(folder) == ["numbers.bin"]
    assert capfd.readouterr() == ("", "")  # no progress bar: not a terminal


def test_a_terminal_shows_a_progress_bar(server, tmp_path):
    server.files["/a/numbers.bin"] = CONTENT
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # rows, columns
    process = start_fetching(tmp_path, server.address("a"), stderr=terminal)
    assert process.wait(600) == 0
    os.write(terminal, b"end")  # so that there is something to read
    shown = os.read(screen, 10_000)
    os.close(terminal)
    os.close(screen)
    assert b"100%" in shown


def test_a_file_put_in_by_hand_is_taken_without_network(tmp_path):
    (tmp_path / "numbers.bin").write_bytes(CONTENT)
    assert fetch(FILE, tmp_path, []) == tmp_path / "numbers.bin"


def test_the_second_mirror_helps_when_the_first_fails(server, tmp_path):
    server.status["/a/numbers.bin"] = [500]
    server.files["/b/numbers.bin"] = CONTENT
    fetch(FILE, tmp_path, [server.address("a"), server.address("b").rstrip("/")], pauses=())
    assert (tmp_path / "numbers.bin").read_bytes() == CONTENT
    assert server.requests == {"/a/numbers.bin": 1, "/b/numbers.bin": 1}


def test_the_mirrors_are_tried_again_after_a_pause(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.files["/a/numbers.bin"] = CONTENT
    server.status["/a/numbers.bin"] = [503, 500]
    fetch(FILE, tmp_path, [server.address("a")], pauses=(0.05, 0.1))
    assert pauses == [0, 0.05, 0.1]
    assert server.requests == {"/a/numbers.bin": 3}


@pytest.mark.parametrize("failure", ["wrong hash", "truncated", "500", "404"])
def test_a_bad_answer_leaves_nothing_and_says_why(failure, server, tmp_path):
    path = "/a/numbers.bin"
    if failure != "404":
        server.files[path] = b"something else" if failure == "wrong hash" else CONTENT
    if failure == "500":
        server.status[path] = [500]
    if failure == "truncated":
        server.truncated.add(path)
    reason = {
        "wrong hash": f"its sha256 is {hashlib.sha256(b'something else').hexdigest()}, not {FILE.sha256}",
        "truncated": "128000 bytes read, 128000 more expected",
        "500": "500 Server Error",
        "404": "404 Client Error",
    }[failure]
    with pytest.raises(FileNotFoundError, match=re.escape(reason)):
        fetch(FILE, tmp_path, [server.address("a")], pauses=())
    assert files_in(tmp_path) == []


def test_without_network_one_error_names_file_addresses_reasons_and_folder(tmp_path):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        mirror = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(FileNotFoundError) as caught:
            fetch(FILE, tmp_path, [f"{mirror}/a/", f"{mirror}/b/"], pauses=(0.01,))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("dataset.mirrors: cannot download numbers.bin; tried ")
    assert message.count("refused") == 2
    assert f"{mirror}/a/numbers.bin (" in message
    assert f"{mirror}/b/numbers.bin (" in message
    assert message.endswith(f"put the file into {tmp_path} by hand")


def test_an_empty_list_of_mirrors_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="tried nothing, the list is empty"):
        fetch(FILE, tmp_path, [], pauses=())


def test_all_files_that_are_missing_are_named(tmp_path):
    files = [RemoteFile(name, "", 0) for name in ("images.gz", "labels.gz", "more.gz")]
    with pytest.raises(FileNotFoundError, match=r"by hand; of its files images.gz, labels.gz, more.gz are missing$"):
        fetch_all(files, tmp_path, [], pauses=())


def test_a_present_file_with_another_hash_is_named_and_kept(server, tmp_path):
    server.files["/a/numbers.bin"] = CONTENT
    present = tmp_path / "numbers.bin"
    present.write_bytes(b"mine")
    with pytest.raises(ValueError, match=re.escape(f"dataset.data_dir: {present} is damaged or another file")):
        fetch(FILE, tmp_path, [server.address("a")])
    assert present.read_bytes() == b"mine"
    assert not server.requests


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "mnist"
    with pytest.raises(ValueError, match=re.escape(f"dataset.data_dir: cannot write to {folder} (Not a directory)")):
        fetch(FILE, folder, ["http://127.0.0.1/"])


def test_two_processes_download_once(server, tmp_path):
    server.files["/a/numbers.bin"] = CONTENT
    server.release.clear()
    processes = [start_fetching(tmp_path, server.address("a")) for _ in range(2)]
    wait_until(lambda: server.requests.total() > 0)
    time.sleep(0.5)  # time for the other to come too
    server.release.set()
    assert [process.wait(600) for process in processes] == [0, 0]
    assert server.requests == {"/a/numbers.bin": 1}
    assert (tmp_path / "numbers.bin").read_bytes() == CONTENT


def test_a_killed_download_leaves_no_finished_file_and_no_lock(server, tmp_path):
    server.files["/a/numbers.bin"] = CONTENT
    server.release.clear()
    process = start_fetching(tmp_path, server.address("a"))
    wait_until(lambda: (tmp_path / "numbers.bin.part").exists())
    process.kill()
    process.wait()
    server.release.set()
    assert files_in(tmp_path) == ["numbers.bin.part"]
    fetch(FILE, tmp_path, [server.address("a")])
    assert files_in(tmp_path) == ["numbers.bin"]


def test_a_mirror_without_end_is_left_at_the_size_of_the_file(server, tmp_path):
    server.files["/a/numbers.bin"] = bytes(1 << 20)
    server.endless.add("/a/numbers.bin")
    with pytest.raises(FileNotFoundError, match="it sends more than the 256,000 bytes of the file"):
        fetch(FILE, tmp_path, [server.address("a")], pauses=())
    assert files_in(tmp_path) == []


def test_a_mirror_that_sends_ever_so_slowly_is_left(server, tmp_path, monkeypatch):
    clock = iter([0.0, 1.0, 31.0])
    monkeypatch.setattr(download, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=time.sleep))
    server.files["/a/numbers.bin"] = CONTENT
    with pytest.raises(FileNotFoundError, match="it sends less than 10,000 bytes a second"):
        fetch(FILE, tmp_path, [server.address("a")], pauses=())
    assert files_in(tmp_path) == []


def test_nothing_is_written_through_a_link(server, tmp_path):
    server.files["/a/numbers.bin"] = CONTENT
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "numbers.bin.part").symlink_to("../secret")
    fetch(FILE, tmp_path / "data", [server.address("a")])
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "data" / "numbers.bin").read_bytes() == CONTENT


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "numbers.bin")
    with pytest.raises(ValueError, match=re.escape(f"dataset.data_dir: {tmp_path / 'numbers.bin'} is no regular file")):
        fetch(FILE, tmp_path, [])
