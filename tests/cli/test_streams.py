"""Closed, full and unread streams, by real commands where only a process has them."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forked import Command

from node_cli.cli.errors import Stream, one_line_errors, output_may_be_lost
from node_cli.runs.outcome import RunFailedError

pytestmark = pytest.mark.slow

QUICK = [
    *("dataset=moons", "dataset.num_samples=100", "model=mlp", "model.width=4", "num_threads=1", "device=cpu"),
    *("trainer.epochs=1", "logger=jsonl"),
]


class Full(io.StringIO):
    """A stream that takes nothing."""

    error: OSError = OSError(28, "No space left on device")

    def write(self, text):
        raise self.error


class Unread(Full):
    error = BrokenPipeError(32, "Broken pipe")


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """`train` stands for the command."""
    function = f'train() {{ "{sys.executable}" -m node_cli.cli.train "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", function + command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_run_without_any_stream_is_a_run_like_others(tmp_path):
    """As by cron. The next file that is opened would have the number of a stream, and get what is written to that."""
    done = shell(tmp_path, f"train {' '.join(QUICK)} run_dir=run 0<&- >&- 2>&-")
    assert done.returncode == 0
    run = tmp_path / "run"
    assert "test error" in (run / "run.log").read_text()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    assert (run / "summary.json").exists()


@pytest.mark.parametrize("where", ["a full disk", "a reader of one line", "no reader"])
def test_a_grid_goes_on_though_nobody_reads(where, tmp_path):
    pipe, words = tmp_path / "pipe", ["-m", *QUICK, "seed=0,1", "sweep.name=grid"]
    if where == "a full disk":
        command = Command(tmp_path, "node-train", *words, out="/dev/full", err="/dev/full")
    else:
        os.mkfifo(pipe)
        command = Command(tmp_path, "node-train", *words, out=str(pipe), err="" if "line" in where else str(pipe))
        with pipe.open() as reader:
            if "line" in where:
                reader.readline()
    command.wait()
    assert len([*tmp_path.glob("outputs/sweeps/grid/*/summary.json")]) == 2


@pytest.mark.parametrize("command", ["train --version", "train --cfg job", "train --help"])
def test_what_cannot_be_written_is_one_line_where_it_is_all_there_is(command, tmp_path):
    done = shell(tmp_path, f"{command} >/dev/full")
    told = "node-train: standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


def written(stream, monkeypatch, *, needed, text="text\n"):
    monkeypatch.setattr(sys, "stdout", stream)
    with one_line_errors("node-eval", needs_output=needed):
        sys.stdout.write(text)
        sys.stdout.flush()
    return sys.stdout


def test_an_output_that_is_not_needed_may_be_lost(monkeypatch):
    for stream in (Full(), Unread()):
        assert written(stream, monkeypatch, needed=False) is stream


def test_one_that_is_needed_is_a_failure_unless_its_reader_has_seen_enough(monkeypatch, capsys):
    for stream, status in ((Full(), 1), (Unread(), 141)):
        with pytest.raises(SystemExit) as end:
            written(stream, monkeypatch, needed=True)
        assert end.value.code == status
    assert capsys.readouterr().err == "node-eval: standard output cannot be written: No space left on device\n"


def test_once_something_else_is_done_it_may_be_lost(monkeypatch):
    stream = Full()
    monkeypatch.setattr(sys, "stdout", stream)
    with one_line_errors("node-train"):
        output_may_be_lost()
        sys.stdout.write("text")
    assert sys.stdout is stream


def test_a_mistake_is_told_though_the_output_is_full(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit) as end, one_line_errors("node-train"):
        raise RunFailedError("the loss is not finite")
    assert (end.value.code, capsys.readouterr().err) == (1, "node-train: the loss is not finite\n")


def test_a_stream_can_be_copied():
    stream = Stream(io.StringIO(), is_needed=True)
    copied = copy.copy(stream)
    assert (copied.stream, copied.is_needed) == (stream.stream, True)
    assert copied.getvalue() == ""
