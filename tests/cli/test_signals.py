"""Real commands that get real signals: the step is finished and saved, and the exit status says what for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from node_cli.training import stopping
from node_cli.training.checkpoint import read_checkpoint

MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
from node_cli.cli.train import main
main()
"""
QUICK = ["model=mlp", "model.width=8", "num_threads=1", "device=cpu", "logger=jsonl", "trainer.log_every_steps=1"]
ENDLESS = [*QUICK, "trainer.epochs=100000", "scheduler=constant"]
LONG = [*QUICK, "trainer.epochs=500", "scheduler=constant"]  # ends, should the signal never come


@pytest.fixture(scope="module")
def begun():
    """The processes that were begun here."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
        process.communicate()


@pytest.fixture(scope="module")
def begin(begun):
    def begin(folder: Path, *words: str) -> subprocess.Popen[str]:
        begun.append(started(folder, *words))
        return begun[-1]

    return begin


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(is_so, process):
    give_up = time.monotonic() + 600
    while not is_so():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.02)


def number_of_lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def end(process):
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def last_step(run: Path) -> int:
    return read_checkpoint(run / "checkpoints" / "last.pt")["state"]["step"]


@contextmanager
def meanwhile(act: Callable[[], None], is_so: Callable[[], bool]) -> Iterator[None]:
    """Acts as soon as something is so."""
    left = threading.Event()

    def watch() -> None:
        while not left.wait(0.01):
            if is_so():
                act()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def is_begun(run: Path) -> Callable[[], bool]:
    """Whether a run has made thirty steps."""
    return lambda: number_of_lines(run / "metrics.jsonl") >= 30


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
    process = begin(folder, *ENDLESS, "run_dir=SIGTERM")
    wait_for(is_begun(folder / "SIGTERM"), process)
    process.send_signal(signal.SIGTERM)
    status, _, err = end(process)
    assert status == 143
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

    def interrupt_twice() -> None:
        for _ in range(2):
            time.sleep(1)  # into the first step, which takes many minutes
            os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(interrupt_twice, (tmp_path / "slow" / "metrics.jsonl").exists):
        result = typed("node-train", *slow)
    assert result.status == 130
    assert result.err.splitlines()[-1] == "node-train: interrupted"


def assert_grid_goes_on(folder: Path, at_work: list[int], status: int, out: str, err: str) -> None:
    """The cells at work have saved their steps; those that waited were not begun."""
    grid = folder / "outputs" / "sweeps" / "grid"
    assert status == 143
    assert err.splitlines()[-1].startswith("node-train: stopped by SIGTERM")
    assert err.splitlines()[-1].endswith("; to go on: node-train -m sweep.resume=outputs/sweeps/grid")
    assert f"{len(at_work)} unfinished" in out
    for number in range(3):
        run = grid / str(number)
        assert (run / ".hydra").exists() == (number in at_work)
        if number in at_work:
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            assert last_step(run) == max(line["step"] for line in lines)


def test_a_grid_ends_and_goes_on(typed, tmp_path):
    with meanwhile(get(signal.SIGTERM), is_begun(tmp_path / "outputs/sweeps/grid/0")):
        result = typed("node-train", "-m", *LONG, "seed=1,2,3", "sweep.name=grid")
    assert_grid_goes_on(tmp_path, [0], result.status, result.out, result.err)


def test_a_grid_in_several_processes_ends_and_goes_on(begin, tmp_path):
    words = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *ENDLESS, "seed=1,2,3", "sweep.name=grid"]
    process = begin(tmp_path, *words)
    grid = tmp_path / "outputs" / "sweeps" / "grid"
    for number in "01":
        wait_for(is_begun(grid / number), process)
    process.send_signal(signal.SIGTERM)
    assert_grid_goes_on(tmp_path, [0, 1], *end(process))


def test_the_cells_of_a_grid_end_with_its_command(begin, tmp_path):
    process = begin(tmp_path, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *ENDLESS, "seed=1,2")
    give_up = time.monotonic() + 600
    while len(cells := [*tmp_path.glob("outputs/sweeps/**/metrics.jsonl")]) < 2:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    process.kill()
    process.wait()
    for cell in cells:
        lock = FileLock(cell.with_name(".lock"), timeout=600)
        lock.acquire()  # whoever was at work there is gone
        lock.release()


def test_submitit_runs_cells_and_puts_one_back_that_is_warned(begin, tmp_path):
    words = [*QUICK, "trainer.epochs=150", "scheduler=constant", "trainer.batch_size=64,0", "sweep.name=grid"]
    process = begin(tmp_path, "-m", "hydra/launcher=submitit_local", *words)
    run, failed = (tmp_path / "outputs" / "sweeps" / "grid" / number for number in "01")
    wait_for(is_begun(run), process)
    [job] = [int(path.name) for path in Path("/proc").iterdir() if has_open(path, run / "metrics.jsonl")]
    os.kill(job, signal.SIGUSR2)
    status, out, err = end(process)
    assert status == 1
    assert "node-train: 1 of 2 cells did not finish (1); to run them again: node-train -m sweep.res" in err
    assert "2 runs: 1 finished, 1 failed" in out
    assert json.loads((failed / "summary.json").read_text())["reason"] == "trainer.batch_size must be at least 1, got 0"
    assert json.loads((run / "summary.json").read_text())["environment"]["num_threads"] == 1
    log = (run / "run.log").read_text()
    assert "stopped by SIGUSR2 after step" in log
    assert f"continuing from {run}/checkpoints/last.pt at step" in log
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line]
    assert sorted(set(steps)) == [*range(1, 3002)]


def has_open(process: Path, file: Path) -> bool:
    try:
        return any(descriptor.readlink() == file for descriptor in (process / "fd").iterdir())
    except OSError:  # no process, or one that has just ended
        return False
