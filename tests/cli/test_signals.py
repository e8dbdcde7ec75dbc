"""Real commands that get real signals: the step is finished and saved, and the exit status says what for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from node_cli.training.checkpoint import read_checkpoint

MAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
from node_cli.cli.train import main
main()
"""
QUICK = ["model=mlp", "model.width=8", "num_threads=1", "device=cpu", "logger=jsonl", "trainer.log_every_steps=1"]
ENDLESS = [*QUICK, "trainer.epochs=100000", "scheduler=constant"]


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
    give_up = time.monotonic() + 60
    while not is_so():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.02)


def number_of_lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def end(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def last_step(run: Path) -> int:
    return read_checkpoint(run / "checkpoints" / "last.pt")["state"]["step"]


@pytest.fixture(scope="module")
def ended(begin, tmp_path_factory):
    """What became of runs that got a signal, or whose time was up, all at the same time."""
    folder = tmp_path_factory.mktemp("signals")
    asked = {name: begin(folder, *ENDLESS, f"run_dir={name}") for name in ("SIGTERM", "SIGINT", "SIGUSR1")}
    asked["max_seconds"] = begin(folder, *ENDLESS, "trainer.max_seconds=12", "run_dir=max_seconds")
    for name, process in asked.items():
        if name != "max_seconds":
            wait_for(lambda name=name: number_of_lines(folder / name / "metrics.jsonl") >= 30, process)
            process.send_signal(getattr(signal, name))
    return folder, {name: end(process) for name, process in asked.items()}


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 75), ("max_seconds", 75)])
def test_the_step_is_finished_and_saved(name, status, ended):
    folder, outcomes = ended
    found, _, err = outcomes[name]
    step = last_step(folder / name)
    cause = "trainer.max_seconds" if name == "max_seconds" else name
    assert found == status
    assert err.splitlines()[-1] == (
        f"node-train: stopped by {cause} after step {step} of 2000000, which is saved; "
        f"to go on: node-train resume={name}"
    )
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [*range(1, step + 1)]


def test_what_was_stopped_is_continued_to_the_same_weights(ended, typed):
    folder, _ = ended
    step = last_step(folder / "SIGTERM")
    assert (
        typed("node-train", f"resume={folder}/SIGTERM", "trainer.epochs=null", f"trainer.max_steps={step + 25}").status
        == 0
    )
    whole = typed("node-train", *ENDLESS, "trainer.epochs=null", f"trainer.max_steps={step + 25}", "run_dir=whole")
    assert whole.status == 0
    ours, theirs = (read_checkpoint(Path(run, "checkpoints", "last.pt")) for run in (folder / "SIGTERM", "whole"))
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())


def test_a_second_interrupt_ends_at_once(begin, tmp_path):
    slow = ["model=odenet", "solver=rk4", "solver.num_steps=100000", "num_threads=1", "logger=jsonl", "run_dir=slow"]
    process = begin(tmp_path, *slow)
    wait_for((tmp_path / "slow" / "metrics.jsonl").exists, process)
    time.sleep(1)  # into the first step, which takes many minutes
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGINT)
    status, _, err = end(process)
    assert status == 130
    assert err.splitlines()[-1] == "node-train: interrupted"
    assert "SIGINT: this step is finished and saved; once more ends at once" in err


@pytest.mark.parametrize(
    "launcher", [[], ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]], ids=["basic", "joblib"]
)
def test_a_grid_ends_and_goes_on(launcher, begin, tmp_path):
    """The cells at work save their steps; those that wait are not begun."""
    process = begin(tmp_path, "-m", *launcher, *ENDLESS, "seed=1,2,3", "sweep.name=grid")
    grid = tmp_path / "outputs" / "sweeps" / "grid"
    at_work = [0, 1] if launcher else [0]
    wait_for(lambda: all(number_of_lines(grid / str(n) / "metrics.jsonl") >= 30 for n in at_work), process)
    process.send_signal(signal.SIGTERM)
    status, out, err = end(process)
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


def test_the_cells_of_a_grid_end_with_its_command(begin, tmp_path):
    process = begin(tmp_path, "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", *ENDLESS, "seed=1,2")
    give_up = time.monotonic() + 60
    while len(cells := [*tmp_path.glob("outputs/sweeps/**/metrics.jsonl")]) < 2:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    process.kill()
    process.wait()
    for cell in cells:
        lock = FileLock(cell.with_name(".lock"), timeout=20)
        lock.acquire()  # whoever was at work there is gone
        lock.release()


def test_submitit_puts_a_job_back_that_is_warned(begin, tmp_path):
    words = [*QUICK, "trainer.epochs=150", "scheduler=constant", "seed=1", "sweep.name=grid"]
    process = begin(tmp_path, "-m", "hydra/launcher=submitit_local", *words)
    run = tmp_path / "outputs" / "sweeps" / "grid" / "0"
    wait_for(lambda: number_of_lines(run / "metrics.jsonl") >= 30, process)
    [job] = [int(path.name) for path in Path("/proc").iterdir() if is_job(path, tmp_path)]
    os.kill(job, signal.SIGUSR2)
    status, out, err = end(process)
    assert (status, err) == (0, "")
    assert "1 run: 1 finished" in out
    log = (run / "run.log").read_text()
    assert "stopped by SIGUSR2 after step" in log
    assert f"continuing from {run}/checkpoints/last.pt at step" in log
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line]
    assert sorted(set(steps)) == [*range(1, 3002)]


def is_job(path: Path, folder: Path) -> bool:
    try:
        return (
            "submitit.core._submit" in (path / "cmdline").read_text() and str(folder) in (path / "cmdline").read_text()
        )
    except OSError:
        return False
