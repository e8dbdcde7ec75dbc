"""Sweeps whose jobs run in processes of their own, by Hydra's launchers joblib and submitit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock
from watched_runs import assert_ended, is_begun, wait_for

QUICK = ["model=mlp", "model.width=8", "num_threads=1", "device=cpu", "logger=jsonl", "trainer.log_every_steps=1"]
QUICK += ["scheduler=constant"]
JOBLIB = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
ENDLESS = "trainer.epochs=100000"
REFUSED = "trainer.batch_size must be at least 1, got 0"
LOST = """
import os
from torch import nn

class Lost(nn.Linear):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, after: int) -> None:
        super().__init__(64, num_outputs)
        if after:
            os._exit(9)

    def forward(self, inputs):
        return super().forward(inputs.flatten(1))
"""

pytestmark = pytest.mark.slow


def summary(job: Path) -> dict[str, object]:
    return json.loads((job / "summary.json").read_text())


def test_jobs_run_in_processes_of_their_own_and_end_and_go_on(begin, tmp_path):
    """One is refused, one finishes, two are at work when the sweep is ended, and one waits."""
    jobs = ["trainer:\n  batch_size: 0\n", "trainer:\n  epochs: 1\n"]
    jobs += [f"seed: {seed}\ntrainer:\n  epochs: 100000\n" for seed in range(3)]
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    for number, text in enumerate(jobs):
        (tmp_path / "mine" / "experiment" / f"job{number}.yaml").write_text(f"# @package _global_\n{text}")
    swept = f"experiment={','.join(f'job{number}' for number in range(5))}"
    process = begin(tmp_path, "node-train", "--config-dir", "mine", *JOBLIB, *QUICK, swept, "sweep.name=grid")
    grid = tmp_path / "outputs" / "sweeps" / "grid"
    for number in "23":
        wait_for(is_begun(grid / number), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 143
    assert_ended(err, grid, [2, 3], [4])
    assert all(count in out for count in ("1 finished", "1 failed", "2 unfinished"))
    refused, finished = summary(grid / "0"), summary(grid / "1")
    assert (refused["status"], refused["reason"]) == ("failed", REFUSED)
    assert (finished["status"], finished["environment"]["num_threads"]) == ("finished", 1)


def test_a_lost_process_is_told_in_one_line(begin, tmp_path):
    (tmp_path / "mylab.py").write_text(LOST)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "lost.yaml").write_text("_target_: mylab.Lost\n_partial_: true\nafter: 0\n")
    words = ["packages=[mylab]", "model=lost", "model.after=0,1", *QUICK[2:], "trainer.epochs=1", "sweep.name=grid"]
    process = begin(tmp_path, "node-train", "--config-dir", "mine", *JOBLIB, *words)
    _, err = process.communicate()
    assert process.returncode == 1
    assert "a process of the launcher was lost; " in err
    assert "Traceback" not in err


def test_jobs_end_with_their_command(begin, tmp_path):
    process = begin(tmp_path, "node-train", *JOBLIB, *QUICK, ENDLESS, "seed=1,2")
    begun = tmp_path.joinpath("outputs", "sweeps").rglob
    wait_for(lambda: len([*begun("metrics.jsonl")]) == 2, process)
    jobs = [*begun("metrics.jsonl")]
    process.kill()
    process.wait()
    for job in jobs:
        lock = FileLock(job.with_name(".lock"), timeout=600)
        lock.acquire()  # whoever was at work there is gone
        lock.release()


def test_submitit_runs_jobs_and_puts_one_back_that_is_warned(begin, tmp_path):
    words = [*QUICK, "trainer.epochs=60", "trainer.batch_size=64,0", "sweep.name=grid"]
    process = begin(tmp_path, "node-train", "-m", "hydra/launcher=submitit_local", *words)
    run, failed = (tmp_path / "outputs" / "sweeps" / "grid" / number for number in "01")
    wait_for(is_begun(run), process)
    [job] = [int(path.name) for path in Path("/proc").iterdir() if has_open(path, run / "metrics.jsonl")]
    os.kill(job, signal.SIGUSR2)
    out, err = process.communicate()
    assert process.returncode == 1
    assert "node-train: 1 of 2 jobs did not finish (1); to run them again: node-train -m sweep.res" in err
    assert "2 runs: 1 finished, 1 failed" in out
    assert summary(failed)["reason"] == REFUSED
    assert summary(run)["environment"]["num_threads"] == 1
    log = (run / "run.log").read_text()
    assert "stopped by SIGUSR2 after step" in log
    assert f"continuing from {run}/checkpoints/last.pt at step" in log
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line]
    assert sorted(set(steps)) == [*range(1, 1202)]


def has_open(process: Path, file: Path) -> bool:
    try:
        return any(descriptor.readlink() == file for descriptor in (process / "fd").iterdir())
    except OSError:  # no process, or one that has just ended
        return False
