"""Real commands that get real signals: the step is finished and saved, and the exit status says what for."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from watched_runs import assert_ended, is_begun, last_step, wait_for

from node_cli import ode
from node_cli.training import stopping
from node_cli.training.checkpoint import read_checkpoint

QUICK = ["model=mlp", "model.width=8", "num_threads=1", "device=cpu", "logger=jsonl", "trainer.log_every_steps=1"]
ENDLESS = [*QUICK, "trainer.epochs=100000", "scheduler=constant"]
LONG = [*QUICK, "trainer.epochs=500", "scheduler=constant"]  # ends, should the signal never come

pytestmark = pytest.mark.slow


@contextmanager
def meanwhile(act: Callable[[], None], is_so: Callable[[], bool], every: float | None = None) -> Iterator[None]:
    """Acts as soon as something is so, and again after so many seconds."""
    left = threading.Event()

    def watch() -> None:
        while not left.wait(0.01):
            if is_so():
                act()
                if every is None or left.wait(every):
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def get(number: int) -> Callable[[], None]:
    """Sends this process the signal."""
    return lambda: os.kill(os.getpid(), number)


def assert_saved(folder: Path, name: str, err: str, num_steps: int) -> None:
    """The last step is whole, and the last line says what it was ended by."""
    step = last_step(folder / name)
    cause = "trainer.max_seconds" if name == "max_seconds" else name
    assert err.splitlines()[-1] == (
        f"node-train: stopped by {cause} after step {step} of {num_steps}, which is saved; "
        f"to go on: node-train resume={name}"
    )
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [*range(1, step + 1)]


@pytest.fixture(scope="module")
def ended(begin, tmp_path_factory):
    """The folder of a process that was ended by SIGTERM."""
    folder = tmp_path_factory.mktemp("signals")
    process = begin(folder, "node-train", *ENDLESS, "run_dir=SIGTERM")
    wait_for(is_begun(folder / "SIGTERM"), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143
    assert_saved(folder, "SIGTERM", err, 2_000_000)
    return folder


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGUSR1", 75)])
def test_the_step_is_finished_and_saved(name, status, typed, tmp_path):
    with meanwhile(get(getattr(signal, name)), is_begun(tmp_path / name)):
        result = typed("node-train", *LONG, f"run_dir={name}")
    assert result.status == status
    assert_saved(tmp_path, name, result.err, 10_000)


def test_when_the_time_is_up_the_step_is_finished_and_saved(typed, tmp_path, monkeypatch):
    def wait_a_day() -> None:
        monkeypatch.setattr(stopping, "PROCESS_STARTED", stopping.PROCESS_STARTED - 86_400)

    with meanwhile(wait_a_day, is_begun(tmp_path / "max_seconds")):
        result = typed("node-train", *LONG, "trainer.max_seconds=86400", "run_dir=max_seconds")
    assert result.status == 75
    assert_saved(tmp_path, "max_seconds", result.err, 10_000)


def test_what_was_stopped_is_continued_to_the_same_weights(ended, typed):
    folder = ended
    step = last_step(folder / "SIGTERM")
    assert (
        typed("node-train", f"resume={folder}/SIGTERM", "trainer.epochs=null", f"trainer.max_steps={step + 25}").status
        == 0
    )
    whole = typed("node-train", *ENDLESS, "trainer.epochs=null", f"trainer.max_steps={step + 25}", "run_dir=whole")
    assert whole.status == 0
    ours, theirs = (read_checkpoint(Path(run, "checkpoints", "last.pt")) for run in (folder / "SIGTERM", "whole"))
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())


def test_a_second_interrupt_ends_at_once(typed, tmp_path):
    slow = ["model=odenet", "solver=rk4", "solver.num_steps=100000", "num_threads=1", "logger=jsonl", "run_dir=slow"]

    def is_within_its_first_step() -> bool:
        """Which takes many minutes."""
        frame = sys._current_frames()[threading.main_thread().ident]
        while frame is not None and not frame.f_code.co_filename.startswith(str(Path(ode.__file__).parent)):
            frame = frame.f_back
        return frame is not None

    with meanwhile(get(signal.SIGINT), is_within_its_first_step, every=1.0):
        result = typed("node-train", *slow)
    assert result.status == 130
    assert result.err.splitlines()[-1] == "node-train: interrupted"


def test_a_grid_ends_and_goes_on(typed, tmp_path):
    """The job at work has saved its step; those that waited were not begun."""
    grid = tmp_path / "outputs" / "sweeps" / "grid"
    with meanwhile(get(signal.SIGTERM), is_begun(grid / "0")):
        result = typed("node-train", "-m", *LONG, "seed=1,2,3", "sweep.name=grid")
    assert result.status == 143
    assert_ended(result.err, grid, [0], [1, 2])
    assert "1 unfinished" in result.out
