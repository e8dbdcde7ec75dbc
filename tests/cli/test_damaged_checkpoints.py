"""A checkpoint that is damaged is named, and the one before it is used."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from node_cli.training.checkpoint import read_checkpoint

WORDS = [
    *("model=mlp", "model.width=8", "num_threads=1", "device=cpu", "scheduler=constant", "logger=jsonl"),
    *("trainer.save_every_steps=5", "trainer.keep=3", "trainer.log_every_steps=1"),
]
DAMAGES = {
    "emptied": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "a bit flipped": lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:],
    "a page of zeros": lambda content: content[:4096] + bytes(4096) + content[8192:],
    "something else": lambda content: b"#!/bin/sh\nexit 1\n" * 100,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, typed_in):
    """A run of one epoch, and the same of two."""
    folder = tmp_path_factory.mktemp("runs")
    for epochs in (1, 2):
        typed_in(folder, "node-train", *WORDS, f"trainer.epochs={epochs}", f"run_dir={folder}/{epochs}")
    return folder


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the shorter one: last.pt and best.pt are other names of step-00000020.pt."""
    folder = tmp_path / "run"
    shutil.copytree(runs / "1", folder)
    for name in ("last.pt", "best.pt"):
        (folder / "checkpoints" / name).unlink()
        os.link(folder / "checkpoints" / "step-00000020.pt", folder / "checkpoints" / name)
    return folder


def damage(path, kind):
    """In place: all of its names are damaged."""
    path.write_bytes(DAMAGES[kind](path.read_bytes()))


def go_on(typed, run):
    return typed("node-train", *WORDS, "trainer.epochs=2", f"run_dir={run}", "resume=auto")


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("train/loss"), line.get("val/loss")) for line in lines]


def assert_as_uninterrupted(run, runs):
    ours, theirs = (read_checkpoint(folder / "checkpoints" / "last.pt") for folder in (run, runs / "2"))
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())
    assert losses(run) == losses(runs / "2")


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_one_before_it_is_used(kind, typed, run, runs):
    damage(run / "checkpoints" / "last.pt", kind)
    result = go_on(typed, run)
    assert (result.status, result.err) == (0, "")
    folder = Path(run, "checkpoints")
    assert result.out.splitlines()[:3] == [
        f"{folder}/last.pt is damaged, or no checkpoint of node-cli: take another one of its folder",
        f"{folder}/step-00000020.pt is damaged, or no checkpoint of node-cli: take another one of its folder",
        f"continuing from {folder}/step-00000015.pt, the newest checkpoint that is sound",
    ]
    assert "last.pt is damaged" in (run / "run.log").read_text()
    assert_as_uninterrupted(run, runs)
    assert all(read_checkpoint(path)["format"] for path in folder.glob("*.pt"))


def test_another_name_of_it_that_is_sound_is_used(typed, run, runs):
    last = run / "checkpoints" / "last.pt"
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content[:-1])
    result = go_on(typed, run)
    assert result.status == 0
    assert "step-00000020.pt, the newest checkpoint that is sound" in result.out
    assert_as_uninterrupted(run, runs)


def test_without_last_the_newest_is_used(typed, run, runs):
    (run / "checkpoints" / "last.pt").unlink()
    result = go_on(typed, run)
    assert result.status == 0
    assert f"continuing from {run}/checkpoints/step-00000020.pt at step 20 of 40" in result.out
    assert_as_uninterrupted(run, runs)


def test_if_all_are_damaged_nothing_is_trained(typed, run):
    for kind, path in zip(DAMAGES, (run / "checkpoints").glob("step-*.pt"), strict=False):
        damage(path, kind)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = go_on(typed, run)
    assert result.status == 2
    names = "last.pt, step-00000020.pt, step-00000015.pt, step-00000010.pt, best.pt"
    assert result.err == f"node-train: no checkpoint in {run}/checkpoints is sound ({names}): start a new run\n"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_one_that_is_named_has_no_stand_in(typed, run):
    path = run / "checkpoints" / "step-00000015.pt"
    damage(path, "cut short")
    result = typed("node-train", f"resume={path}")
    assert result.status == 2
    assert result.err == (
        f"node-train: {path} is damaged, or no checkpoint of node-cli: take another one of its folder\n"
    )


def test_one_of_another_run_is_refused(typed, run, tmp_path):
    typed("node-train", *WORDS, "model.width=4", "trainer.epochs=1", f"run_dir={tmp_path}/other")
    shutil.copy(tmp_path / "other" / "checkpoints" / "last.pt", run / "checkpoints" / "last.pt")
    result = go_on(typed, run)
    assert result.status == 2
    what = "has the weights of another model than the config of its run: size mismatch for "
    assert result.err.startswith(f"node-train: {run}/checkpoints/last.pt {what}")
    assert result.err.count("\n") == 1


def test_a_finished_run_without_its_checkpoints_is_not_trained_over(typed, run):
    shutil.rmtree(run / "checkpoints")
    result = go_on(typed, run)
    assert result.status == 2
    assert result.err == (f"node-train: {run} holds a finished run without its checkpoints: set another run_dir\n")
    assert len(losses(run)) > 20
