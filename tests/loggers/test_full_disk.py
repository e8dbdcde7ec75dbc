"""Records written to a disk that is really full: a small one, mounted for one process alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from node_cli.loggers.base import Loggers, Resume
from node_cli.loggers.jsonl import JsonlLogger
from node_cli.loggers.tensorboard import TensorBoardLogger

STEPS = 400
CHILD = Path(__file__).with_name("on_a_full_disk.py")
ON_SMALL_DISKS = """
set -e
mount -t tmpfs -o size=800k tmpfs "$1/freed"
mount -t tmpfs -o size=800k tmpfs "$1/full"
exec "$2" "$3" "$1" "$4" "$5"
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of what two runs have left, and what they said on the console."""
    folder = tmp_path_factory.mktemp("full_disk")
    disks, copies = folder / "disks", folder / "copies"
    for name in ("freed", "full"):
        (disks / name).mkdir(parents=True)
    words = [disks, sys.executable, CHILD, copies, STEPS]
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_SMALL_DISKS, "sh", *map(str, words)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    return copies, process.stdout


@pytest.fixture
def freed(runs):
    return runs[0] / "freed"


@pytest.fixture
def full(runs):
    return runs[0] / "full"


def refusals(run):
    return json.loads((run / "refusals.json").read_text())


def scalar_steps(run):
    [path] = run.glob("events.out.tfevents.*")
    return steps_and_rest(path)


def steps_and_rest(path):
    """The steps of the loss that an event file holds, and how many of its bytes TensorBoard does not read."""
    records = list(RawEventFileLoader(str(path)).Load())
    events = [Event.FromString(record) for record in records]
    steps = [event.step for event in events if "train/loss" in [value.tag for value in event.summary.value]]
    return steps, path.stat().st_size - sum(len(record) + 16 for record in records)


def messages(run):
    """The lines of run.log without their times."""
    return [line.split(" ", 3)[3] for line in (run / "run.log").read_text().splitlines()]


def test_no_record_is_lost_or_doubled(freed):
    assert [json.loads(line)["step"] for line in (freed / "metrics.jsonl").read_text().splitlines()] == [*range(STEPS)]
    assert scalar_steps(freed) == ([*range(STEPS)], 0)
    assert [line for line in messages(freed) if line.startswith("step")] == [f"step {n}" for n in range(STEPS)]


@pytest.mark.parametrize("name", ["run.log", "metrics.jsonl", "events.out.tfevents"])
def test_that_it_waits_and_that_it_has_caught_up_is_said_once_each(name, freed, runs):
    begins = "cannot be written (No space left on device): what belongs there is kept in memory until it can"
    ends = "can be written again, and nothing is missing in it"
    for lines in (messages(freed), runs[1].splitlines()):
        said = [line.split(" ", 1)[1] for line in lines if f"/freed/run/{name}" in line]
        assert said in ([begins, ends], [begins, ends] * 2)  # twice if the little room was enough for a while


def test_a_flush_says_what_is_not_on_the_disk(freed):
    refused = refusals(freed)
    assert {step for step, _ in refused} <= {*range(STEPS // 4, 3 * STEPS // 4)}
    last = [text for step, text in refused if step == 3 * STEPS // 4 - 1]
    assert [name in text for name, text in zip(("/events.out", "/metrics.jsonl"), last, strict=True)] == [True, True]
    assert all(" bytes could not be written: No space left on device" in text for _, text in refused)


def test_a_disk_that_stays_full_is_an_error_at_the_end_and_leaves_the_beginning(full):
    step, refusal = refusals(full)[-1]
    assert step == "end"
    assert "bytes could not be written: No space left on device" in refusal
    lines = (full / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines[:-1]] == [*range(len(lines) - 1)]
    assert STEPS // 4 < len(lines) < STEPS
    steps, _ = scalar_steps(full)
    assert steps == [*range(len(steps))]


def test_what_a_full_disk_left_can_be_resumed(full, tmp_path):
    shutil.copytree(full, tmp_path / "run")
    folder, resume = tmp_path / "run", Resume(50, 0)
    loggers = Loggers([TensorBoardLogger(folder, resume, flush_secs=600, run_name=None), JsonlLogger(folder, resume)])
    loggers.log_scalars(51, {"train/loss": 0.0})
    loggers.close()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [*range(52)]
    old, new = sorted((tmp_path / "run").glob("events.out.tfevents.*"))
    assert (steps_and_rest(old), steps_and_rest(new)) == (([*range(51)], 0), ([51], 0))
