"""Densities through every command: small flows of points and of images."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from node_cli import load_run
from node_cli.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

HERE = ["num_threads=1", "device=cpu"]
SMALL = ["model.width=4", "model.num_layers=1", "solver=rk4", "solver.num_steps=1", "dataset.num_samples=60"]
QUICK = ["trainer.epochs=2", "trainer.updates_per_epoch=2", "trainer.log_every_steps=1", "logger=jsonl"]
MOONS = ["task=density", "dataset=moons", *SMALL, *QUICK]


def logged(run: Path, tag: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[tag] for line in lines if tag in line]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / "last.pt")["model"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("densities")


@pytest.fixture(scope="module")
def trained(place, typed_in) -> Path:
    """By likelihood, with noise of every kind."""
    how = ["task.objective=likelihood", "task.steer=0.1", "task.kinetic=0.1", "gradient=checkpoint"]
    typed_in(place, "node-train", *MOONS, *how, *HERE, "trainer.save_every_steps=1", "trainer.keep=9", "run_dir=moons")
    return place / "moons"


@pytest.fixture
def here(typed, place, monkeypatch):
    monkeypatch.chdir(place)

    def run(program, *words):
        result = typed(program, *words, *([] if program == "node-report" else HERE))
        assert result.status == 0, result.err
        return result.out

    return run


def test_a_likelihood_is_reported_in_nats_and_bits(trained):
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["objective"] == {"metric": "bits_per_dim", "goal": "min"}
    found = summary["metrics"]
    assert found["test/nll"] == pytest.approx(found["test/bits_per_dim"] * 2 * math.log(2))
    assert len(logged(trained, "train/kinetic")) == 4


def test_a_run_taken_up_in_its_middle_is_the_same_to_the_last_bit(trained, place, here):
    shutil.copytree(trained, place / "again")
    here("node-train", "resume=again/checkpoints/step-00000001.pt")
    assert logged(place / "again", "train/loss") == logged(trained, "train/loss")
    assert all(torch.equal(tensor, weights(trained)[name]) for name, tensor in weights(place / "again").items())


def test_new_samples_and_the_densities_of_new_points_are_written(trained, place, here, typed):
    assert here("node-predict", "run=moons", "samples=7", "out=drawn.csv", "batch_size=4") == (
        "drawn.csv: 7 new samples\n"
    )
    header, *lines = (place / "drawn.csv").read_text().splitlines()
    assert (header, len(lines)) == ("sample_0,sample_1", 7)
    here("node-predict", "run=moons", "out=test.csv")
    assert (place / "test_density.png").read_bytes().startswith(b"\x89PNG")
    run = load_run(trained, device="cpu")
    drawn = run.sample(7)
    assert drawn.shape == (7, 2)
    assert not np.array_equal(drawn, run.sample(7, seed=1))
    np.savez(place / "new.npz", inputs=drawn)
    here("node-predict", "run=moons", "dataset.path=new.npz", "out=dense.npz")
    with np.load(place / "dense.npz") as found:
        np.testing.assert_array_equal(found["log_prob"], run.log_prob(drawn))
    for words, line in {
        ("samples=7", "split=test"): "split has no effect with samples=..., which are new: leave it out",
        ("seed=1",): "seed has no effect without samples=...: leave it out",
        ("samples=0",): "samples must be a whole number, 1 or more, or null, got 0",
        ("samples=2", "label=3"): "label must be one that samples were conditioned by (none, as task.condition=null)",
    }.items():
        result = typed("node-predict", "run=moons", "out=none.csv", *words)
        assert (result.status, result.err.startswith(f"node-predict: {line}")) == (2, True), result.err


def test_the_result_of_another_solver_stands_beside_it(trained, here):
    said = here("node-eval", "run=moons", "solver.num_steps=4")
    assert re.search(r"^solver +loss +nll +bits_per_dim +NFE", said, flags=re.MULTILINE)
    assert re.search(r"bits_per_dim from \S+ to \S+ \(change \S+, limit 0.01\)", said)


def test_an_audit_holds_probes_against_the_exact_trace(trained, here):
    said = here("node-audit", "run=moons", "gradients=[direct,checkpoint]", "logger=none")
    assert "Gradients of Cnf, a batch of" in said
    told = re.search(r"by 4 probes of each sample are on average (\S+) nats off .* own standard error is (\S+)", said)
    assert abs(float(told[1])) < 4 * float(told[2])


def test_flow_matching_needs_no_solve_in_training(here, place):
    here("node-train", *MOONS, "task.coupling=ot", "task.condition=label", "run_dir=matched")
    assert logged(place / "matched", "nfe/forward") == []
    assert logged(place / "matched", "nfe/test") == [4]
    summary = json.loads((place / "matched" / "summary.json").read_text())
    assert all(map(math.isfinite, summary["metrics"].values()))
    here("node-predict", "run=matched", "samples=3", "label=1", "out=ones.csv")
    assert (place / "ones.csv").read_text().count(",1\n") == 3


def test_a_sweep_over_couplings_is_compared_by_validation(here):
    said = here("node-train", "-m", *MOONS, "task.coupling=independent,ot", "sweep.name=couplings")
    assert re.search(r"best on validation: outputs/sweeps/couplings/\d, val/bits_per_dim ", said)
    report = here("node-report", "outputs/sweeps/couplings", "--by", "task.coupling", "--show", "test/nll")
    assert {"independent", "ot"} <= {word for line in report.splitlines() for word in line.split()}


def test_a_likelihood_in_two_processes_is_as_in_one(here, place, begin):
    """Without noise of their own: the trace is exact."""
    words = [*MOONS, "task.objective=likelihood", "task.trace=exact"]
    here("node-train", *words, "run_dir=one")
    process = begin(place, "node-train", *words, *HERE, "trainer.devices=2", "run_dir=two")
    _, said = process.communicate()
    assert process.returncode == 0, said
    for tag in ("train/nll", "val/nll", "test/bits_per_dim"):
        assert logged(place / "two", tag) == pytest.approx(logged(place / "one", tag), rel=1e-4), tag
    one, two = (json.loads((place / name / "summary.json").read_text())["details"] for name in ("one", "two"))
    assert two["baselines"] == pytest.approx(one["baselines"])
    assert two["errors"]["samples"] == pytest.approx(one["errors"]["samples"], rel=1e-3)


def test_trials_of_a_search_are_compared_by_bits_a_dimension(place, begin):
    process = begin(place, "node-tune", *MOONS, *HERE, "tune.trials=2", "tune.sampler=random")
    said, err = process.communicate()
    assert process.returncode == 0, err
    assert "2 runs: 2 finished" in said
    assert "val/bits_per_dim" in said
