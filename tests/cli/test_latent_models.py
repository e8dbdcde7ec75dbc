"""Latent models of series through every command, and mistakes with them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from node_cli import load_run
from node_cli.training.checkpoint import read_checkpoint

HERE = ["num_threads=1", "device=cpu"]
SMALL = ["model.width=4", "model.encoder_width=4", "model.decoder_width=4", "solver=rk4", "solver.num_steps=1"]
DATA = ["dataset.num_series=24", "dataset.num_times=8", "dataset.num_beyond=4", "dataset.context=8", "dataset.drop=0.5"]
DATA += ["dataset.val=4", "dataset.test=4"]
QUICK = ["trainer.epochs=2", "trainer.updates_per_epoch=2", "trainer.batch_size=6", "trainer.log_every_steps=1"]
QUICK += ["trainer.save_every_steps=1", "trainer.keep=9", "logger=jsonl"]
ENCODERS = ["rnn", "ode_rnn", "cde"]
SWEEP = "outputs/sweeps/encoders"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("latent")


@pytest.fixture(scope="module")
def trained(place, typed_in) -> Path:
    """By the default encoder, the first of a sweep over all of them."""
    how = ["task.rates=true", "task.num_samples=2", "task.eval_samples=3"]
    swept = ["-m", f"model.encoder={','.join(ENCODERS)}", "sweep.name=encoders"]
    typed_in(place, "node-train", "task=latent", *DATA, *SMALL, *how, *QUICK, *HERE, *swept)
    (place / "mine").symlink_to(place / SWEEP / "0")
    return place / "mine"


@pytest.fixture(params=ENCODERS)
def of_encoder(request, trained, place) -> Path:
    """The run of each encoder."""
    return place / SWEEP / str(ENCODERS.index(request.param))


@pytest.fixture
def here(typed, place, monkeypatch):
    monkeypatch.chdir(place)

    def run(program, *words):
        result = typed(program, *words, *HERE)
        assert result.status == 0, result.err
        return result.out

    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / "last.pt")["model"]


def test_a_run_leaves_its_metrics_and_figures(trained):
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["objective"] == {"metric": "nll", "goal": "min"}
    assert {"test/extrapolation_true_rmse", "test/coverage", "val/iwae"} <= set(summary["metrics"])
    assert set(summary["details"]["noise_std"]) == {"x", "y"}
    assert "log_noise" in weights(trained)


def test_a_sweep_over_encoders_is_compared_by_the_likelihood(trained, here, typed):
    report = typed("node-report", SWEEP, "--by", "model.encoder", "--show", "val/nll")
    assert set(ENCODERS) <= {word for line in report.out.splitlines() for word in line.split()}


def test_a_run_taken_up_in_its_middle_is_the_same_to_the_last_bit(of_encoder, tmp_path, here):
    again = shutil.copytree(of_encoder, tmp_path / "again")
    here("node-train", f"resume={again}/checkpoints/step-00000001.pt")
    assert all(torch.equal(tensor, weights(of_encoder)[name]) for name, tensor in weights(again).items())


def test_bands_go_on_to_a_time_of_the_users(trained, place, here):
    here("node-predict", "run=mine", "until=0.5", "samples=5", "out=bands.csv")
    header, *lines = (place / "bands.csv").read_text().splitlines()
    assert header == "series,time,x,x_low,x_high,x_observed,y,y_low,y_high,y_observed,is_shown,failed"
    low, middle, high = (float(lines[-1].split(",")[column]) for column in (3, 2, 4))
    assert low < middle < high
    assert float(lines[-1].split(",")[1]) == pytest.approx(0.5, abs=1e-6)
    shown = Counter(line.split(",")[0] for line in lines if line.endswith("true,false"))
    here("node-predict", "run=mine", "until=0.5", "out=band_arrays.npz", "figures=false")
    assert np.load(place / "band_arrays.npz")["series"].tolist() == list(dict.fromkeys(x.split(",")[0] for x in lines))
    assert list(shown.values()) == [4] * 4  # as in training: half of 8 times; the 4 beyond them are not shown
    assert (place / "bands_series.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_read_back_encodes_and_forecasts_raw_series(of_encoder):
    run = load_run(of_encoder, device="cpu")
    times = np.linspace(0, 0.14, 8)[None].repeat(3, 0)
    raw = {"times": times, "values": np.random.default_rng(0).normal(size=(3, 8, 2))}
    found = run.encode(raw)
    assert {name: array.shape for name, array in found.items()} == {"mean": (3, 4), "std": (3, 4)}
    forecast = run.forecast(raw, until=0.3, samples=4)
    assert forecast["prediction"].shape == (*forecast["time"].shape, 2)
    assert (forecast["low"] < forecast["high"]).all()
    assert forecast["time"][0, -1] == pytest.approx(0.3)
    with pytest.raises(ValueError, match="samples must be at least 2 for a band, got 1"):
        run.forecast(raw, until=0.3, samples=1)


def test_an_audit_of_a_stochastic_loss_finds_each_gradient_by_a_fixed_seed(of_encoder, here):
    found = off_the_pass(here("node-audit", f"run={of_encoder}", "logger=none"))
    assert set(found) == {"direct", "checkpoint", "adjoint"}
    assert found["direct"] < 1e-3
    assert found["checkpoint"] < 1e-3
    assert found["adjoint"] < 10  # single steps of rk4 backwards
    assert off_the_pass(here("node-audit", f"run={of_encoder}", "gradients=[direct]", "logger=none")) == {
        "direct": found["direct"]
    }


def off_the_pass(said: str) -> dict[str, float]:
    """In %, by gradient: the first table of an audit."""
    rows = said[said.index("Gradients of LatentOde, a batch of") :].partition("\n\n")[0].splitlines()[2:]
    return {words[1]: float(words[3]) for words in map(str.split, rows)}


def test_a_baseline_without_latent_state_has_bands_of_its_noise(place, here):
    here("node-train", "task=latent", *DATA, "model=gru", "model.width=3", *QUICK, "run_dir=gru")
    summary = json.loads((place / "gru" / "summary.json").read_text())["metrics"]
    assert summary["test/loss"] == summary["test/iwae"]
    run = load_run(place / "gru", device="cpu")
    with pytest.raises(ValueError, match="Gru of this run has no latent state to encode series into"):
        run.encode({})


# What is typed after node-train task=latent, and the line that answers, or its beginning.
MISTAKES = {
    "no samples": (["task.num_samples=0"], "task.num_samples must be at least 1, got 0"),
    "a band of one sample": (["task.eval_samples=1"], "task.eval_samples must be at least 2, got 1"),
    "a negative weight": (["task.kl_weight=-1"], "task.kl_weight must be at least 0, got -1"),
    "a start above the end": (["task.kl_from=2"], "task.kl_from must be from 0 to 1, got 2"),
    "an end after the run": (["task.kl_until=1.5"], "task.kl_until must be from 0 to 1, got 1.5"),
    "a start of what does not grow": (
        ["task.kl_until=0", "task.kl_from=0.5"],
        "task.kl_from=0.5 has no effect with task.kl_until=0: set that above 0, or leave it out",
    ),
    "no such encoder": (["model.encoder=lstm"], "model.encoder must be one of rnn, ode_rnn, cde, got lstm"),
    "no latent state": (["model.latent_dim=0"], "model.latent_dim must be at least 1, got 0"),
    "no memory": (["model.encoder_width=0"], "model.encoder_width must be at least 1, got 0"),
    "no field": (["model.width=0"], "model.width must be at least 1, got 0"),
    "a negative layer": (["model.decoder_width=-1"], "model.decoder_width must be at least 0, got -1"),
    "no such activation": (["model.activation=sine"], "model.activation must be one of"),
    "samples of a model without": (
        ["model=gru", "task.num_samples=3"],
        "task.num_samples=3 has no effect on a Gru, which has no latent state: take model=latent_ode, or leave it out",
    ),
    "rates of a model without": (
        ["model=gru", "task.rates=true"],
        "task.rates=True has no effect on a Gru, which has no",
    ),
    "images": (["dataset=digits"], "task: node_cli.tasks.latent.Latent needs units, channel_names, which neither"),
    "a model of images": (["model=resnet"], "model: node_cli.models.resnet.ResNet needs input_shape"),
    "more seen than there is": (["dataset.context=101"], "dataset.context must be at most the 100 times that"),
}


@pytest.mark.parametrize(("words", "line"), MISTAKES.values(), ids=MISTAKES)
def test_one_line_status_2_nothing_written(typed, tmp_path: Path, words: list[str], line: str):
    result = typed("node-train", "task=latent", *HERE, "trainer.epochs=1", *words)
    assert result.err.startswith(f"node-train: {line}")
    assert (result.err.count("\n"), result.status, result.out) == (1, 2, "")
    assert not list(tmp_path.iterdir())


def test_what_has_no_effect_on_a_prediction_is_refused(trained, here, typed):
    for words, line in {
        ("samples=5", "seed=1"): "seed has no effect on samples that bands are made of: leave it out",
        ("samples=1",): "samples must be at least 2 for a band, got 1",
        ("until=0.05",): "until=0.05 must be after the data, which end at",
    }.items():
        result = typed("node-predict", "run=mine", "out=none.csv", *words)
        assert (result.status, result.err.startswith(f"node-predict: {line}")) == (2, True), result.err
