import os
import subprocess
import sys
import zipfile

import pytest
import torch

from node_cli.files import TEMPORARY, link_whole
from node_cli.training import checkpoint
from node_cli.training.checkpoint import (
    FORMAT,
    CheckpointError,
    Checkpoints,
    evaluated_weights,
    read_checkpoint,
    read_first_sound,
    write_checkpoint,
)

PAYLOAD = {"model": {"w": torch.arange(6.0)}, "state": {"step": 3, "history": [{"val/loss": 0.1}]}}
KILLS = """
import os, signal, sys, time, torch
from pathlib import Path
from node_cli.training.checkpoint import Checkpoints, read_checkpoint

torch.set_num_threads(1)
folder = Path(sys.argv[1])

def write_for_ever():
    checkpoints = Checkpoints(folder, keep=2)
    for step in range(1_000_000):
        checkpoints.save({"step": step, "w": torch.full((50_000,), float(step))}, step, is_best=step % 3 == 0)

for round_number in range(15):
    before = (folder / "last.pt").stat().st_mtime_ns if round_number else 0
    pid = os.fork()
    if pid == 0:
        write_for_ever()
    while not (folder / "last.pt").exists() or (folder / "last.pt").stat().st_mtime_ns == before:
        time.sleep(0.001)  # until it is at work
    time.sleep(0.001 * round_number)
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    for path in folder.glob("*.pt"):
        payload = read_checkpoint(path)
        assert (payload["w"] == payload["step"]).all()
        print(path.name)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def steps(folder):
    return {path.name: read_checkpoint(path)["step"] for path in folder.glob("*.pt")}


def test_what_is_written_is_read(tmp_path):
    write_checkpoint(tmp_path / "a.pt", PAYLOAD)
    payload = read_checkpoint(tmp_path / "a.pt")
    assert payload["format"] == FORMAT
    assert payload["state"] == PAYLOAD["state"]
    assert torch.equal(payload["model"]["w"], PAYLOAD["model"]["w"])
    assert names(tmp_path) == ["a.pt"]


def test_torch_and_unzip_read_the_file_too(tmp_path):
    write_checkpoint(tmp_path / "a.pt", PAYLOAD)
    payload = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(payload["model"]["w"], PAYLOAD["model"]["w"])
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a.pt"
    write_checkpoint(path, PAYLOAD)
    content = path.read_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=r"a\.pt is damaged, or no checkpoint of node-cli: take another one"):
            read_checkpoint(path)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 700, -65, -64, -1])
def test_a_file_cut_short_is_noticed(length, tmp_path):
    path = tmp_path / "a.pt"
    write_checkpoint(path, PAYLOAD)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(path)


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    path.write_text("no zip at all, and longer than a checksum: " + "x" * 100)
    with pytest.raises(CheckpointError, match="no checkpoint of node-cli"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a sound archive of something else")
    with pytest.raises(CheckpointError, match="no checkpoint of node-cli"):
        read_checkpoint(path)
    torch.save(torch.nn.Linear(2, 2), path)  # would run code when loaded
    with pytest.raises(CheckpointError, match="no checkpoint of node-cli"):
        read_checkpoint(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"^no checkpoint at .*nowhere\.pt$"):
        read_checkpoint(tmp_path / "nowhere.pt")
    with pytest.raises(CheckpointError, match=r"^no checkpoint at "):
        read_checkpoint(tmp_path)


def test_another_format_is_refused(tmp_path):
    write_checkpoint(tmp_path / "a.pt", {**PAYLOAD, "format": FORMAT + 1})
    with pytest.raises(
        CheckpointError, match=f"has checkpoint format {FORMAT + 1}, this version reads format {FORMAT}$"
    ):
        read_checkpoint(tmp_path / "a.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "a.pt", PAYLOAD)
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, 100))
    with pytest.raises(OSError, match="what was read back is not what was written"):
        write_checkpoint(tmp_path / "a.pt", {"state": {}})
    assert read_checkpoint(tmp_path / "a.pt")["state"] == PAYLOAD["state"]
    assert names(tmp_path) == ["a.pt"]


def test_a_file_is_replaced_and_never_written_over(tmp_path):
    path = tmp_path / "a.pt"
    write_checkpoint(path, PAYLOAD)
    content = path.read_bytes()
    with path.open("rb") as old:
        write_checkpoint(path, {"state": {}})
        assert old.read() == content


def test_last_best_and_the_newest_are_kept(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, keep=2)
    for step in (5, 10, 15, 120):
        checkpoints.save({"step": step}, step, is_best=step in (5, 10))
    expected = {"best.pt": 10, "last.pt": 120, "step-00000015.pt": 15, "step-00000120.pt": 120}
    assert steps(folder) == expected
    assert names(folder) == sorted(expected)


def test_what_lies_after_a_run_continued_from_an_older_checkpoint_is_forgotten(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (5, 10, 15):
        checkpoints.save({"step": step}, step, is_best=False)
    Checkpoints(tmp_path, keep=3).save({"step": 7}, 7, is_best=False)
    assert steps(tmp_path) == {"last.pt": 7, "step-00000005.pt": 5, "step-00000007.pt": 7}


@pytest.mark.parametrize("best_step", [5, 15])
def test_a_run_that_goes_back_forgets_what_came_after(best_step, tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=9)
    weights = {step: {"w": torch.tensor(float(step))} for step in (5, 10, 15)}
    for step in weights:
        payload = {"step": step, "state": {}, "model": weights[step], "average": {}}
        checkpoints.save(payload, step, is_best=step <= best_step)
    before = (tmp_path / "best.pt").read_bytes()
    checkpoints.go_back_to(tmp_path / "step-00000010.pt", 10, weights[5])
    assert names(tmp_path) == ["best.pt", "last.pt", "step-00000005.pt", "step-00000010.pt"]
    assert read_checkpoint(tmp_path / "last.pt")["step"] == 10
    assert evaluated_weights(read_checkpoint(tmp_path / "best.pt")) == weights[5]
    assert ((tmp_path / "best.pt").read_bytes() == before) == (best_step == 5)
    if best_step > 5:
        with pytest.raises(CheckpointError, match=r"best\.pt has the weights of the best validation alone: no run can"):
            read_first_sound([tmp_path / "best.pt"])
    content = {path: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoints.go_back_to(tmp_path / "last.pt", 10, weights[5])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == content
    checkpoints.go_back_to(tmp_path / "step-00000005.pt", 5, {})  # before any validation
    assert names(tmp_path) == ["last.pt", "step-00000005.pt"]


def test_one_file_has_three_names(tmp_path):
    Checkpoints(tmp_path, keep=2).save({"step": 1}, 1, is_best=True)
    assert {path.stat().st_ino for path in tmp_path.iterdir()} == {(tmp_path / "last.pt").stat().st_ino}


def test_a_file_system_without_hard_links_gets_copies(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted", source)

    monkeypatch.setattr(os, "link", refuse)
    Checkpoints(tmp_path, keep=2).save({"step": 1}, 1, is_best=True)
    assert steps(tmp_path) == {"best.pt": 1, "last.pt": 1, "step-00000001.pt": 1}
    assert len({path.stat().st_ino for path in tmp_path.iterdir()}) == 3


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    (tmp_path / f"{TEMPORARY}-0123").write_bytes(b"half")
    Checkpoints(tmp_path, keep=2).save({"step": 8}, 8, is_best=False)
    assert names(tmp_path) == ["last.pt", "step-00000008.pt"]


def test_best_is_never_behind_last(tmp_path, monkeypatch):
    """Killed between the two names, the run is continued from before the best epoch, not from after it."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save({"step": 1}, 1, is_best=True)

    def die_at_last(source, target):
        if target.name == "last.pt":
            raise KeyboardInterrupt
        link_whole(source, target)

    monkeypatch.setattr(checkpoint, "link_whole", die_at_last)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save({"step": 2}, 2, is_best=True)
    assert steps(tmp_path) == {"best.pt": 2, "last.pt": 1, "step-00000001.pt": 1, "step-00000002.pt": 2}


def test_processes_killed_while_they_write_leave_whole_files(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLS, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("last.pt") == 15
    assert done.stdout.count("step-") >= 15


def test_a_disk_that_keeps_something_else_is_noticed_before_anything_is_removed(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        checkpoints.save({"step": step}, step, is_best=step == 1)
    before = names(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, 100))
    with pytest.raises(OSError, match="what was read back is not what was written"):
        checkpoints.save({"step": 3}, 3, is_best=True)
    monkeypatch.undo()
    assert steps(tmp_path) == {"best.pt": 1, "last.pt": 2, "step-00000001.pt": 1, "step-00000002.pt": 2}
    assert names(tmp_path) == before
