"""A real run on a disk that is really full: a small one, mounted for one process alone."""

import json
from pathlib import Path

import pytest
import torch
from forked import Command

from node_cli.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

WORDS = [
    *("model=odenet", "model.width=8", "solver=rk4", "solver.num_steps=1", "scheduler=constant", "num_threads=1"),
    *("device=cpu", "logger=jsonl", "trainer.epochs=6", "trainer.save_every_steps=3", "trainer.log_every_steps=1"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What such a run has left, copied from the disk."""
    folder = tmp_path_factory.mktemp("small_disk")
    (folder / "disk").mkdir()
    process = Command(folder, "on_a_small_disk", str(folder / "disk"), str(folder / "copy"), *WORDS)
    _, err = process.communicate()
    assert process.returncode == 0, err
    return folder / "copy"


@pytest.fixture(scope="module")
def found(run):
    return json.loads((run / "found.json").read_text())


def test_training_goes_on_and_the_old_checkpoints_stay(found):
    [said, *_] = [line for line in found["failed"]["out"].splitlines() if "could not be written (" in line]
    assert said.startswith("the checkpoint after step ")
    assert "No space left on device" in said
    assert said.endswith("; training goes on, and the checkpoints before it stay")
    steps = [name for name in found["while_full"] if name.startswith("step-")]
    assert len(steps) == 2
    assert "last.pt" in found["while_full"]


def test_at_the_end_it_is_an_error(found):
    assert found["failed"]["status"] == 1
    assert found["failed"]["err"].startswith("node-train: ")
    assert found["failed"]["err"].endswith("; nor could that be written down: No space left on device\n")
    assert "Traceback" not in found["failed"]["err"]
    assert len([name for name in found["failed"]["saved"] if name.startswith("step-")]) == 2


def test_once_there_is_room_it_goes_on_and_nothing_is_lost(found, run, typed):
    assert (found["again"]["status"], found["again"]["err"]) == (0, "")
    assert "continuing from " in found["again"]["out"]
    assert typed("node-train", *WORDS, "run_dir=whole").status == 0
    ours, theirs = (read_checkpoint(Path(folder, "checkpoints", "last.pt")) for folder in (run, "whole"))
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())
    assert losses(run) == losses(Path("whole"))
    assert len(losses(run)) >= 120


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("train/loss"), line.get("val/loss"), line.get("test/loss")) for line in lines]
