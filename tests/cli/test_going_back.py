"""Runs that are killed between two files, or go back: no step or epoch stands twice, and none is missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from node_cli.datasets.dataset import Dataset
from node_cli.loggers.jsonl import JsonlLogger
from node_cli.training.checkpoint import Checkpoints, evaluated_weights, read_checkpoint

pytestmark = pytest.mark.slow

WORDS = [
    *("dataset=moons", "dataset.num_samples=100", "model=mlp", "model.width=4", "num_threads=1", "device=cpu"),
    *("trainer.batch_size=32", "trainer.log_every_steps=1", "trainer.histograms_every_epochs=1", "trainer.keep=9"),
    *("scheduler=constant", "trainer.epochs=3", "run_dir=run"),
]
CLOCKS = ("time", "time/step_ms", "memory/peak_mb")


class KilledError(BaseException):
    """What nobody catches, as nobody does `kill -9`."""


@pytest.fixture(scope="module")
def whole(typed_in, tmp_path_factory):
    """The folder of an uninterrupted run of three epochs of three steps."""
    folder = tmp_path_factory.mktemp("whole")
    typed_in(folder, "node-train", *WORDS)
    return folder / "run"


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def records(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{tag: value for tag, value in line.items() if tag not in CLOCKS} for line in lines]


def curves(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    histograms = {tag: [e.step for e in events.Histograms(tag)] for tag in events.Tags()["histograms"]}
    return {tag: values for tag, values in (scalars | histograms).items() if tag not in CLOCKS}


def killed_at(step, monkeypatch, typed, *words):
    """A command whose process ends when the record of a step has been written."""
    log_scalars = JsonlLogger.log_scalars

    def last(self, number, values):
        log_scalars(self, number, values)
        if number == step:
            raise KilledError

    monkeypatch.setattr(JsonlLogger, "log_scalars", last)
    with pytest.raises(KilledError):
        typed("node-train", *words)
    monkeypatch.setattr(JsonlLogger, "log_scalars", log_scalars)


def test_an_epoch_stands_once_after_a_stop_within_its_validation_and_a_kill_before_its_checkpoint(
    whole, typed, monkeypatch
):
    batches, save = Dataset.batches, Checkpoints.save

    def stopped(self, split, batch_size):
        os.kill(os.getpid(), signal.SIGTERM)
        return batches(self, split, batch_size)

    def killed(self, payload, step, **keys):
        raise KilledError

    monkeypatch.setattr(Dataset, "batches", stopped)
    assert typed("node-train", *WORDS).status == 143
    monkeypatch.setattr(Dataset, "batches", batches)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert [line["step"] for line in records(Path("run"))] == [1, 2, 3]
    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(KilledError):
        typed("node-train", *WORDS, "resume=auto")
    monkeypatch.setattr(Checkpoints, "save", save)
    assert records(Path("run"))[-1]["epoch"] == 1
    assert typed("node-train", *WORDS, "resume=auto").status == 0
    assert records(Path("run")) == records(whole)
    assert curves(Path("run")) == curves(whole)


def test_a_run_that_goes_back_and_is_killed_goes_on_from_there(run, whole, typed, monkeypatch):
    killed_at(5, monkeypatch, typed, "resume=run/checkpoints/step-00000003.pt")
    assert [line["step"] for line in records(run)] == [1, 2, 3, 3, 4, 5]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.pt", "last.pt", "step-00000003.pt"]
    done = typed("node-train", "resume=run")
    assert (done.status, done.err) == (0, "")
    assert "continuing from run/checkpoints/last.pt at step 3 of 9" in done.out
    assert records(run) == records(whole)
    assert curves(run) == curves(whole)


def test_the_best_of_an_abandoned_stretch_is_forgotten(run, typed, monkeypatch):
    best_there = read_checkpoint(run / "checkpoints" / "step-00000003.pt")["best_weights"]
    killed_at(4, monkeypatch, typed, "resume=run/checkpoints/step-00000003.pt")
    kept = evaluated_weights(read_checkpoint(run / "checkpoints" / "best.pt"))
    assert all(kept[name].equal(tensor) for name, tensor in best_there.items())
    assert typed("node-eval", "run=run").status == 0


def test_records_that_end_before_the_checkpoint_are_named(run, typed):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:4]))
    for path in run.glob("events.*"):
        path.unlink()
    done = typed("node-train", "resume=run", "trainer.epochs=4")
    assert done.status == 0
    ends = "the checkpoint stands at step 9: what was recorded between them is missing in it"
    assert f"run/metrics.jsonl ends at step 3, and {ends}" in done.out
    assert f"run/events.out.tfevents.* holds nothing, and {ends}" in done.out
