"""Labelled series through every command: classes and numbers, from training to predictions and figures."""

from __future__ import annotations

import csv
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
QUICK = ["trainer.epochs=1", "trainer.updates_per_epoch=2", "trainer.figures_every_epochs=0", "logger=jsonl"]
QUICK += ["trainer.save_every_steps=1", "trainer.keep=9"]
SMALL = ["model.width=4", "model.hidden_width=4"]
VOWELS = ["task=classification", "dataset=japanese_vowels"]
WAVES = "who,t,x,rate\n" + "".join(
    f"{name},{t / 2},{'' if t == 1 else round(math.sin(t * (number + 0.5) / 20), 4)},{number + 0.5}\n"
    for number, name in enumerate("abcdefghij")
    for t in range(5 + number % 3)
)
RATES = ["task=regression", "dataset.path=waves.csv", "dataset.time=t", "dataset.series=who", "dataset.label=rate"]
RATES += ["dataset.split=series"]
PLACES = [(area, age) for area in range(30, 150, 3) for age in (0, 20, 45)]
TABLE = "kind,area,age,price,rent\n" + "".join(
    f"{'flat' if area < 90 else 'house'},{area},{age},{2000 * area - 500 * age},{area * 8 + age / 10 + 0.5}\n"
    for area, age in PLACES
)
HOUSES = ["task=regression", "dataset.path=houses.csv", "dataset.columns=[area,age]"]
IN_ROWS = {"mlp": [], "odenet_mlp": ["model.width=8", "solver=rk4", "solver.num_steps=2"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory, typed_in) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "waves.csv").write_text(WAVES)
    (folder / "houses.csv").write_text(TABLE)
    typed_in(folder, "node-train", *VOWELS, "model=cde", *SMALL, "dataset.drop=0.5", *QUICK, *HERE, "run_dir=vowels")
    typed_in(folder, "node-train", *RATES, "model=ode_rnn", *SMALL, *QUICK, *HERE, "run_dir=rates")
    return folder


@pytest.fixture
def here(typed, place, monkeypatch):
    monkeypatch.chdir(place)

    def run(program, *words):
        result = typed(program, *words, *HERE)
        assert result.status == 0, result.err
        return result.out

    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def place_names(place: Path, split: str, run: str = "vowels") -> list[str]:
    """The series of a split, as the data say; of small runs each split has two at least."""
    names = list(load_run(place / run, device="cpu").dataset().sample_names[split])
    assert len(set(names)) == len(names) > 1
    return names


def test_classes_of_series_are_predicted_evaluated_and_drawn(here, place):
    summary = json.loads((place / "vowels" / "summary.json").read_text())
    assert summary["objective"] == {"metric": "error", "goal": "min"}
    assert sum(each["samples"] for each in summary["details"]["per_class"].values()) == 370
    assert f"{summary['metrics']['test/accuracy']:.4f}" in here("node-eval", "run=vowels")
    said = here("node-predict", "run=vowels", "split=val", "out=vowels.csv")
    assert "vowels_confusion_matrix.png, vowels_wrong_predictions.png" in said
    table = rows(place / "vowels.csv")
    assert len(table) == 54
    assert [row["series"] for row in table] == place_names(place, "val")
    assert {"class", "targets", "failed"} <= set(table[0])
    assert sum(float(table[0][name]) for name in table[0] if name.startswith("probability")) == pytest.approx(1)


@pytest.mark.parametrize("name", ["vowels", "rates"])
def test_a_run_taken_up_in_its_middle_is_the_same_to_the_last_bit(name, here, place, tmp_path):
    """With noise on what is read, and weights that are averaged."""
    again = shutil.copytree(place / name, tmp_path / "again")
    here("node-train", f"resume={again}/checkpoints/step-00000001.pt")
    one, other = (read_checkpoint(run / "checkpoints" / "last.pt")["average"] for run in (place / name, again))
    assert all(torch.equal(tensor, one[key]) for key, tensor in other.items())
    assert one.keys() == other.keys() != set()


def test_a_run_reads_new_series(here, place):
    run = load_run(place / "vowels", device="cpu")
    new = {"times": np.arange(12.0).reshape(2, 6), "values": np.zeros((2, 6, 12))}
    found = run.predict(new)
    assert set(found) >= {"class", "probability"}
    np.savez(place / "new.npz", **new)
    here("node-predict", "run=vowels", "dataset.path=new.npz", "out=new.csv")
    assert [row["class"] for row in rows(place / "new.csv")] == list(found["class"])
    assert (place / "new_predictions.png").exists()


def test_numbers_of_series_come_with_their_errors_beside_those_of_the_mean(here, place):
    summary = json.loads((place / "rates" / "summary.json").read_text())
    assert {"test/rmse", "test/mae", "test/r2"} <= set(summary["metrics"])
    assert set(summary["details"]["mean_baseline"]["rate"]) == {"rmse", "mae", "r2"}
    assert "of the training mean" in (place / "rates" / "run.log").read_text()
    here("node-predict", "run=rates", "out=rates.csv")
    table = rows(place / "rates.csv")
    assert all(float(row["observed_rate"]) % 1 == pytest.approx(0.5) for row in table)
    assert [row["series"] for row in table] == place_names(place, "test", "rates")
    here("node-predict", "run=rates", "out=rate_arrays.npz", "batch_size=1", "figures=false")
    assert np.load(place / "rate_arrays.npz")["series"].tolist() == [row["series"] for row in table]
    assert (place / "rates_predictions.png").exists()
    (place / "unlabelled.csv").write_text("\n".join(line.rpartition(",")[0] for line in WAVES.splitlines()))
    here("node-predict", "run=rates", "dataset.path=unlabelled.csv", "out=told.csv")
    assert [row["series"] for row in rows(place / "told.csv")] == [*"abcdefghij"]


def test_arrays_of_series_are_learned_and_new_ones_told_by_their_names(here, place):
    names, kinds = np.array([f"p{k}" for k in range(12)]), np.array(["well", "ill"])[np.arange(12) % 2]
    times = np.tile(np.arange(6.0), (12, 1))
    values = np.where(kinds[:, None] == "ill", times, 5 - times)[..., None]
    values[::3, 2] = np.nan
    arrays = {"times": times, "values": values, "series": names, "outcome": kinds, "dose": times[:, :2] + 0.5}
    np.savez(place / "wards.npz", **arrays)
    words = ["dataset=npz", "dataset.path=wards.npz", "model=gru", *SMALL[:1], *QUICK]
    here("node-train", "task=classification", *words, "dataset.label=outcome", "run_dir=wards")
    here("node-predict", "run=wards", "out=wards.csv")
    table = rows(place / "wards.csv")
    assert [row["series"] for row in table] == place_names(place, "test", "wards")
    assert [row["targets"] for row in table] == [kinds[int(row["series"][1:])] for row in table]
    np.savez(place / "more.npz", times=times[:3], values=values[:3], series=names[:3] + "x", outcome=kinds[:3])
    here("node-predict", "run=wards", "dataset.path=more.npz", "out=more.csv")
    table = rows(place / "more.csv")
    assert [(row["series"], row["targets"]) for row in table] == [("p0x", "well"), ("p1x", "ill"), ("p2x", "well")]
    assert (place / "more_confusion_matrix.png").exists()
    here("node-train", "task=regression", *words, "dataset.label=dose", "dataset.normalize=false", "run_dir=doses")
    here("node-predict", "run=doses", "dataset.path=wards.npz", "out=doses.csv")
    columns = ["series", "prediction_dose_1", "prediction_dose_2", "observed_dose_1", "observed_dose_2", "failed"]
    assert list(rows(place / "doses.csv")[0]) == columns


@pytest.mark.parametrize("model", ["mlp", "odenet_mlp"])
def test_numbers_of_rows_are_learned_predicted_and_evaluated(model, here, place):
    words = [*HOUSES, "dataset.label=[price,rent]", f"model={model}", f"run_dir={model}", "logger=jsonl"]
    here("node-train", *words, "trainer.epochs=2", "trainer.figures_every_epochs=0", *IN_ROWS[model])
    summary = json.loads((place / model / "summary.json").read_text())
    assert set(summary["details"]["per_target"]) == {"price", "rent"}
    assert summary["metrics"]["test/r2"] > 0.8
    assert f"{summary['metrics']['test/rmse']:.4g}" in here("node-eval", f"run={model}")
    here("node-predict", f"run={model}", f"out={model}.csv")
    table = rows(place / f"{model}.csv")
    assert list(table[0]) == ["prediction_price", "prediction_rent", "observed_price", "observed_rent", "failed"]
    errors = [float(row["prediction_rent"]) - float(row["observed_rent"]) for row in table]
    rmse = math.sqrt(sum(error * error for error in errors) / len(errors))
    assert rmse == pytest.approx(summary["details"]["per_target"]["rent"]["rmse"], rel=1e-3)
    (place / "new.csv").write_text("area,age\n50,10\n120,10\n")
    here("node-predict", f"run={model}", "dataset.path=new.csv", f"out={model}_new.csv", "figures=false")
    small, large = (float(row["prediction_price"]) for row in rows(place / f"{model}_new.csv"))
    assert small < large
    found = load_run(place / model, device="cpu").predict(np.array([[50.0, 10.0], [120.0, 10.0]]))
    assert found["prediction"][:, 0].tolist() == pytest.approx([small, large], rel=1e-5)


def test_classes_of_rows_are_words(here, place):
    words = [*HOUSES, "task=classification", "dataset=csv", "dataset.label=kind", "model=mlp", "run_dir=kinds"]
    here("node-train", *words, "trainer=labels", "trainer.epochs=1", "logger=none")
    here("node-predict", "run=kinds", "out=kinds.csv", "figures=false")
    table = rows(place / "kinds.csv")
    assert set(table[0]) == {"class", "probability_flat", "probability_house", "failed", "targets"}
    assert sum(row["class"] == row["targets"] for row in table) >= 0.9 * len(table)


def test_forecasts_name_their_series(here, place):
    words = ["task=trajectory", "dataset=csv", *RATES[1:], "model=linear_ar", "dataset.context=3"]
    here("node-train", *words, "trainer.epochs=1", "trainer.updates_per_epoch=2", "logger=none", "run_dir=ahead")
    here("node-predict", "run=ahead", "out=ahead.csv", "figures=false")
    here("node-predict", "run=ahead", "out=ahead.npz", "figures=false")
    names = place_names(place, "test", "ahead")
    assert list(dict.fromkeys(row["series"] for row in rows(place / "ahead.csv"))) == names
    assert np.load(place / "ahead.npz")["series"].tolist() == names


def test_gradients_of_a_cde_pass_their_audit(here):
    words = [*RATES, "model=cde", "model.width=2", "model.hidden_width=3", "model.activation=tanh", "solver=dopri5"]
    words += ["problem.batch_size=2", "problem.reference_rtol=1e-4", "rtols=[1e-3]", "logger=none"]
    said = here("node-audit", "problem=model", *words)
    assert "Use dopri5 direct 0.001: the gradient of the loss computed" in said
    assert "dopri5 checkpoint 0.001 is exact too" in said
    off = re.findall(r"^dopri5 +adjoint +0.001 +([\d.e-]+) % +[\d.e-]+ % +([\d.e-]+) %", said, re.MULTILINE)
    assert all(float(each) < 10 for each in off[0])  # per cent, from the pass and from the ODE


MISTAKES = {
    "an image model": (
        [*VOWELS, "model=odenet"],
        "the task gives: take model=cde, gru, gru_d or ode_rnn, or another dataset\n",
    ),
    "a model of forecasts": (
        [*VOWELS, "model=linear_ar"],
        "Classification needs a LabelModel, got LinearAr: take model=cde, gru, gru_d or ode_rnn",
    ),
    "images": (["model=cde"], "needs num_channels, num_controls, num_statics, which neither its YAML nor the dataset"),
    "no labels": (["task=classification", "dataset=storms", "model=cde"], "these series have no labels"),
    "classes as numbers": (["task=regression", "dataset=japanese_vowels"], "the labels are classes: take task=class"),
    "numbers as classes": ([*RATES, "task=classification", "dataset=csv", "model=gru"], "take task=regression"),
    "a forecast": (["task=trajectory", "model=cde", "dataset=storms"], "needs num_outputs, which neither"),
    "a context": ([*VOWELS, "model=gru", "dataset.context=3"], "dataset.context=3 has no effect on what is told of a"),
    "a readout": ([*VOWELS, "model=cde", "model.readout=max"], "model.readout must be one of last, mean, got max"),
    "noise": ([*VOWELS, "model=gru", "model.noise=-1"], "model.noise must be 0 or more, got -1"),
    "dropout": ([*VOWELS, "model=gru_d", "model.dropout=1"], "model.dropout must be 0 or more and below 1, got 1"),
    "a control": ([*VOWELS, "model=cde", "model.control=cubic"], "model.control must be one of hermite, linear, rect"),
    "compile": ([*VOWELS, "model=cde", "solver.compile=step"], "solver.compile must be none or auto for a CDE: every"),
    "rows without labels": (
        [*HOUSES, "model=mlp"],
        "these rows have no labels: set dataset.label to the column of what is to be told, or take task=density",
    ),
    "classes of rows as numbers": ([*HOUSES, "dataset.label=kind"], "the labels are classes: take task=classification"),
    "numbers of rows as classes": (
        [*HOUSES, "task=classification", "dataset=csv", "dataset.label=rent"],
        "rent is a number: take task=regression",
    ),
    "rows for a model of series": (
        [*HOUSES, "dataset.label=rent"],
        "task gives: take model=mlp or odenet_mlp, or another dataset\n",
    ),
    "rows for a model of images": (
        [*HOUSES, "dataset.label=rent", "model=odenet"],
        "use model=odenet_mlp or model=mlp",
    ),
    "rows as series": ([*HOUSES, "dataset.label=rent", "dataset.drop=0.5"], "dataset.drop=0.5 has no effect without"),
    "rows of a forecast": (
        [*HOUSES, "task=trajectory", "dataset=csv", "dataset.label=rent"],
        "dataset.time is required: set it to the column of times of houses.csv",
    ),
    "a key of labels": (["task=trajectory", "model=gru", "model.noise=0.1"], "model.noise=0.1 has no effect in forec"),
}


@pytest.mark.parametrize("words", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line(words, place, typed, monkeypatch):
    monkeypatch.chdir(place)
    result = typed("node-train", *words[0], *HERE, "run_dir=never")
    assert result.status == 2
    assert words[1] in result.err
    assert not (place / "never").exists()
