"""A checkpoint that is damaged is named, and the one before it is used."""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from node_cli.training.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.slow

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


def other_model(path):
    payload = read_checkpoint(path)
    payload["model"] = {name: torch.zeros(3, 3) for name in payload["model"]}
    return payload


def not_finite(path):
    payload = read_checkpoint(path)
    next(iter(payload["model"].values())).fill_(torch.nan)
    return payload


SOUND = {  # what is whole, and no checkpoint of this run
    "another model": (
        other_model,
        "has the weights of another model than the config of its run: size mismatch for model.",
    ),
    "not finite": (
        not_finite,
        "has the weights of another model than the config of its run: model.layers.1.weight is not",
    ),
    "newer": (
        lambda path: read_checkpoint(path) | {"format": 3},
        "has checkpoint format 3, this version reads format 2",
    ),
    "an older state": (
        lambda path: {"model": read_checkpoint(path)["model"]},
        "has the weights of the best validation alone",
    ),
    "a key of a later version": (
        lambda path: read_checkpoint(path) | {"state": read_checkpoint(path)["state"] | {"luck": 3}},
        "cannot be of this run: state has 'luck', which this version does not know",
    ),
    "another config": (
        lambda path: read_checkpoint(path) | {"run": {"config": {"seed": 7}, "data": None}},
        "was trained with another config than this run has (seed: 7 -> 0): restore .hydra/config.yaml, or take a",
    ),
}


def replace(path, make):
    payload = make(path)
    path.unlink()
    write_checkpoint(path, payload)


@pytest.mark.parametrize(("make", "reason"), SOUND.values(), ids=SOUND)
def test_the_one_before_what_is_sound_but_not_ours_is_used(make, reason, typed, run, runs):
    for name in ("last.pt", "step-00000020.pt"):
        replace(run / "checkpoints" / name, make)
    result = go_on(typed, run)
    assert (result.status, result.err) == (0, "")
    folder, lines = Path(run, "checkpoints"), result.out.splitlines()
    assert lines[0].startswith(f"{folder}/last.pt {reason}")
    assert lines[2] == f"continuing from {folder}/step-00000015.pt, the newest checkpoint that is sound"
    assert_as_uninterrupted(run, runs)


def test_folders_and_other_files_of_torch_are_passed_by(typed, run, runs):
    folder = run / "checkpoints"
    for name in ("last.pt", "step-00000020.pt"):
        (folder / name).unlink()
    (folder / "step-3.pt").mkdir()
    torch.save({"format": 2}, folder / "step-00000020.pt")
    content = b"as long as it has its digest"
    (folder / "step-00000030.pt").write_bytes(content + sha256(content).hexdigest().encode())
    result = go_on(typed, run)
    assert (result.status, result.err) == (0, "")
    assert f"no checkpoint at {folder}/step-3.pt" in result.out
    assert f"{folder}/step-00000020.pt is damaged, or no checkpoint of node-cli" in result.out
    assert f"{folder}/step-00000030.pt is whole, but no checkpoint of node-cli: " in result.out
    assert f"continuing from {folder}/step-00000015.pt" in result.out


def test_one_that_is_named_and_not_ours_is_refused(typed, run):
    path = run / "checkpoints" / "step-00000015.pt"
    for make, reason in SOUND.values():
        content = path.read_bytes()
        replace(path, make)
        result = typed("node-train", f"resume={path}")
        assert (result.status, result.err.count("\n")) == (2, 1)
        assert result.err.startswith(f"node-train: {path} {reason}")
        path.write_bytes(content)


def test_a_finished_run_without_its_checkpoints_is_not_trained_over(typed, run):
    shutil.rmtree(run / "checkpoints")
    result = go_on(typed, run)
    assert result.status == 2
    assert result.err == (f"node-train: {run} holds a finished run without its checkpoints: set another run_dir\n")
    assert len(losses(run)) > 20
