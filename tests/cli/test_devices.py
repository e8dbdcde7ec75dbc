"""`trainer.devices=2` and torchrun, by real commands: killed workers, signals, mistakes, restarts, clean exits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

from node_cli.training.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.slow

TORCHRUN = "torch.distributed.run"
QUICK = [
    *("model=mlp", "model.width=8", "num_threads=1", "device=cpu", "logger=jsonl", "scheduler=constant"),
    *("trainer.log_every_steps=1", "trainer.save_every_steps=10"),
]
LONG = [*QUICK, "trainer.epochs=6", "dataset.crop_padding=1", "init_from=theirs.pt", "init_skip=[layers.3]"]
TOGETHER = "trainer.devices=2"
CLOCKS = ("time", "time/step_ms", "memory/peak_mb")


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def end(process):
    out, err = process.communicate()
    return process.returncode, out, err


def wait_for_step(run: Path, step: int, process) -> None:
    give_up = time.monotonic() + 600
    while not (run / "metrics.jsonl").exists() or (run / "metrics.jsonl").read_text().count("\n") < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up
        time.sleep(0.01)


def wait_for_workers(process, before=()) -> list[int]:
    """Two of them, other ones than those `before`."""
    while len(workers := sorted(set(children(process.pid)) - set(before))) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return workers


def wait_for_end(workers: list[int]) -> None:
    """They notice that the command is gone."""
    give_up = time.monotonic() + 600
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def records(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{tag: value for tag, value in line.items() if tag not in CLOCKS} for line in lines]


def weights(run: Path) -> dict[str, torch.Tensor]:
    payload = read_checkpoint(run / "checkpoints" / "last.pt")
    return {**payload["model"], **{f"best {name}": tensor for name, tensor in payload["best_weights"].items()}}


def assert_equal_to_the_last_bit(run: Path, other: Path) -> None:
    assert records(run) == records(other)
    assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(run).items())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def save_theirs(folder: Path) -> None:
    """Weights that every run begins with."""
    generator = torch.Generator().manual_seed(1)
    sizes = {"layers.1.weight": (8, 64), "layers.1.bias": (8,), "layers.3.weight": (3, 8), "layers.3.bias": (3,)}
    weights = {name: torch.randn(size, generator=generator) / 8 for name, size in sizes.items()}
    write_checkpoint(folder / "theirs.pt", {"model": weights, "average": {}})


@pytest.fixture(autouse=True)
def _theirs(tmp_path):
    save_theirs(tmp_path)


@pytest.fixture(scope="module")
def whole(begin, tmp_path_factory):
    """An uninterrupted run of two launchers with a process each, as on two machines that share a folder."""
    folder = tmp_path_factory.mktemp("whole")
    save_theirs(folder)
    endpoint = f"--rdzv-endpoint=127.0.0.1:{free_port()}"
    launch = [TORCHRUN, "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", endpoint]
    launch += ["--local-addr=127.0.0.1", "--rdzv-id=7", "-m", "node_cli.cli.train"]
    machines = [begin(folder, *launch, *LONG, "run_dir=run") for _ in range(2)]
    outcomes = [end(process) for process in machines]
    assert [status for status, _, _ in outcomes] == [0, 0], "\n".join(err for _, _, err in outcomes)
    assert sum(out.count("run folder run") for _, out, _ in outcomes) == 1  # said by one of them
    assert sorted(path.name for path in folder.iterdir()) == ["run", "theirs.pt"]
    return folder / "run"


def test_a_run_of_two_is_the_run_of_one(whole, typed, tmp_path):
    result = typed("node-train", *LONG, "run_dir=one")
    assert (result.status, result.err) == (0, "")
    ours, theirs = records(whole), records(tmp_path / "one")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(tensor, weights(tmp_path / "one")[name], rtol=1e-3, atol=1e-4)


def test_a_run_that_is_killed_in_every_way_ends_as_if_nothing_had_been(whole, begin, typed, tmp_path):
    """Worker by worker, as a whole, and by a signal."""
    run, command = (
        tmp_path / "run",
        ["node-train", *LONG, TOGETHER, "trainer.max_restarts=1", "run_dir=run", "resume=auto"],
    )
    (tmp_path / "own").mkdir()
    command += ["--config-dir", "own"]
    process = begin(tmp_path, *command, forking=False)
    workers = wait_for_workers(process)
    process.kill()  # while they import
    wait_for_end(workers)

    process = begin(tmp_path, *command)
    workers = wait_for_workers(process)
    os.kill(workers[1], signal.SIGKILL)
    os.kill(wait_for_workers(process, before=workers)[0], signal.SIGKILL)
    status, out, err = end(process)
    assert (status, out) == (1, "")
    assert [line for line in err.splitlines() if "process " in line] == [
        "node-train: process 1 was ended by SIGKILL; starting again from the last checkpoint",
        "node-train: process 0 was ended by SIGKILL, and trainer.max_restarts=1 is used up",
    ]
    assert "Traceback" not in err
    assert json.loads((run / "summary.json").read_text())["status"] == "failed"

    process = begin(tmp_path, *command)
    wait_for_step(run, 12, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    wait_for_step(run, 40, process)
    workers = children(process.pid)
    process.kill()
    wait_for_end(workers)
    out, err = process.said()
    assert out.count("run folder run") == 2  # said by one of them, and again after the restart
    assert "node-train: process 0 was ended by SIGKILL; starting again from the last checkpoint" in err.splitlines()

    process = begin(tmp_path, *command)
    wait_for_step(run, 70, process)
    for _ in range(3):  # the first one is enough, and those that follow change nothing
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    status, _, err = end(process)
    step = read_checkpoint(run / "checkpoints" / "last.pt")["state"]["step"]
    assert status == 143
    [told] = [line for line in err.splitlines() if "which is saved" in line]
    assert told == (
        f"node-train: stopped by SIGTERM after step {step} of 120, which is saved; "
        f"to go on: node-train --config-dir {tmp_path}/own resume=run"
    )

    shutil.copytree(run, tmp_path / "alone")
    result = typed("node-train", f"resume={tmp_path}/alone", "trainer.devices=1")
    assert (result.status, result.err) == (0, "")
    assert "processes was 2 and is 1: results may differ in the last digits from here on" in result.out
    for one, other in zip(records(tmp_path / "alone"), records(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-2, abs=1e-3)

    status, _, err = end(begin(tmp_path, "node-train", "resume=run"))
    assert (status, err) == (0, "")
    assert_equal_to_the_last_bit(run, whole)


def test_a_mistake_is_told_once_and_leaves_nothing(begin, tmp_path):
    """By processes that are begun anew, and not forked."""
    words = [*QUICK, TOGETHER, "model.width=-1", "run_dir=run"]
    status, out, err = end(begin(tmp_path, "node-train", *words, forking=False))
    assert (status, out) == (2, "")
    assert err.startswith("node-train: model.width")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pt"]


def test_a_run_that_fails_is_told_once(begin, tmp_path):
    status, _, err = end(begin(tmp_path, "node-train", *QUICK, TOGETHER, "optimizer.lr=1e30", "run_dir=run"))
    assert status == 1
    assert err.startswith("node-train: step ")
    assert "is not finite" in err
    assert err.count("\n") == 1
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


def test_a_job_of_a_grid_may_take_two(whole, begin, tmp_path):
    """And is the run of two machines to the last bit."""
    status, out, err = end(begin(tmp_path, "node-train", "-m", *LONG, TOGETHER, "sweep.name=grid"))
    assert (status, err) == (0, "")
    assert "1 run: 1 finished" in out
    run = tmp_path / "outputs" / "sweeps" / "grid" / "0"
    assert_equal_to_the_last_bit(run, whole)
    assert json.loads((run / "summary.json").read_text())["config"]["trainer"]["devices"] == 2


def test_torchrun_needs_a_folder_for_all(begin, tmp_path):
    launch = [TORCHRUN, "--standalone", "--nproc-per-node=2", "-m", "node_cli.cli.train"]
    status, _, err = end(begin(tmp_path, *launch, *QUICK))
    assert status == 1
    said = [line for line in err.splitlines() if line.startswith("node-train: ")]
    assert said
    assert set(said) == {
        "node-train: run_dir is required: processes that a launcher starts need one folder, set run_dir=..."
    }
    assert not (tmp_path / "outputs").exists()
