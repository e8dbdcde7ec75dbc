"""Time series through every command: small fits of real and of computed series, tables of one's own, forecasts."""

from __future__ import annotations

import csv
import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from node_cli import load_run
from node_cli.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

HERE = ["num_threads=1", "device=cpu"]
QUICK = ["trainer.epochs=2", "trainer.updates_per_epoch=2", "trainer.log_every_steps=1", "logger=jsonl"]
NARROW = ["model.width=8", "solver=rk4", "solver.num_steps=1"]
DATED = "day,a,b,dose\n" + "".join(
    f"2024-01-{day:02},{math.sin(day / 3):.4f},{'' if day == 4 else round(day / 7, 3)},{day % 2}\n"
    for day in range(1, 19)
)
MANY = "patient,t,pressure,age\n" + "".join(
    f"{name},{t / 2},{50 + 10 * math.cos(t / 2 + phase):.3f},{40 + phase}\n"
    for phase, name in enumerate("abcdefgh")
    for t in range(9 + phase % 3)
)
CSV = ["task=trajectory", "dataset=csv"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def logged(run: Path, tag: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line[tag] for line in lines if tag in line]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / "last.pt")["model"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    (folder / "dated.csv").write_text(DATED)
    (folder / "many.csv").write_text(MANY)
    return folder


@pytest.fixture(scope="module")
def trained(place, typed_in) -> Path:
    words = ["task=trajectory", *NARROW, *QUICK, *HERE, "trainer.save_every_steps=1", "trainer.keep=9"]
    typed_in(place, "node-train", *words, "run_dir=lynx")
    return place / "lynx"


@pytest.fixture
def here(typed, place, monkeypatch):
    monkeypatch.chdir(place)

    def run(program, *words):
        result = typed(program, *words, *([] if program == "node-report" else HERE))
        assert result.status == 0, result.err
        return result.out

    return run


def test_the_default_is_lynx_and_hare_beside_forecasts_that_need_no_training(trained):
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["choices"]["dataset"] == "lynx_hare"
    assert summary["objective"] == {"metric": "loss", "goal": "min"}
    assert summary["metrics"]["test/persistence_log_rmse"] == pytest.approx(1.077, abs=1e-3)
    assert summary["details"]["by_horizon"]["time"] == [1, 2, 3, 4, 5]
    assert set(summary["details"]["by_channel"]) == {"hare", "lynx"}
    said = (trained / "run.log").read_text()
    assert re.search(r"test persistence_log_rmse +1.077", said)


def test_a_forecast_goes_beyond_the_data_with_its_figure(here, place, trained):
    said = here("node-predict", "run=lynx", "until=1930", "out=forecast.csv")
    assert said.splitlines()[0] == "forecast.csv: 1 sample, 31 rows"
    table = rows(place / "forecast.csv")
    assert list(table[0]) == ["year", "hare", "hare_observed", "lynx", "lynx_observed", "is_shown", "failed"]
    assert [float(row["year"]) for row in table] == [*range(1900, 1931)]
    assert [row["is_shown"] for row in table] == ["true"] * 21 + ["false"] * 10
    assert float(table[0]["hare_observed"]) == pytest.approx(30)
    assert (place / "forecast_series.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_was_killed_continues_to_the_last_bit(place, trained, here, begin):
    words = ["task=trajectory", *NARROW, *QUICK, *HERE, "trainer.save_every_steps=1", "trainer.keep=9"]
    process = begin(place, "node-train", *words, "run_dir=killed")
    while not (place / "killed" / "checkpoints" / "step-00000003.pt").exists():
        assert process.poll() is None, process.said()
        time.sleep(0.005)
    process.kill()
    process.wait()
    here("node-train", "resume=killed")
    assert logged(place / "killed", "train/loss") == logged(trained, "train/loss")
    assert all(torch.equal(tensor, weights(trained)[name]) for name, tensor in weights(place / "killed").items())


def test_it_is_evaluated_audited_and_read_back(trained, here):
    said = here("node-eval", "run=lynx", "solver.num_steps=4")
    assert re.search(r"^solver +loss +rmse ", said, flags=re.MULTILINE)
    said = here("node-audit", "run=lynx", "gradients=[direct,checkpoint,adjoint]", "logger=none")
    assert "Gradients of NeuralOde, a batch of 1 in float32" in said
    assert "Use rk4 direct: the gradient of the loss computed" in said
    run = load_run(trained)
    raw = {"times": np.arange(1900.0, 1911)[None], "values": np.full((1, 11, 2), np.nan)}
    raw["values"][:, 0] = [30, 4]
    predicted = run.predict(raw)
    assert predicted["prediction"].shape == (1, 11, 2)
    assert predicted["prediction"][0, 0] == pytest.approx([30, 4], rel=1e-4)
    own = run.predict({name: raw[name] for name in raw})
    np.testing.assert_array_equal(own["prediction"], predicted["prediction"])


def test_an_untrained_model_of_the_task_is_audited(here, typed):
    said = here("node-audit", "task=trajectory", "model.width=8", "rtols=[1e-2]", "gradients=[direct]", "logger=none")
    assert "Gradients of NeuralOde, a batch of 1 in float32" in said
    refused = typed("node-audit", "task=trajectory", "trainer=series")
    assert (refused.status, refused.err) == (2, "node-audit: trainer has no effect on an audit: leave it out\n")


def test_a_table_of_ones_own_with_dates_controls_and_a_gap(here, place):
    words = ["dataset.path=dated.csv", "dataset.time=day", "dataset.columns=[a,b]", "dataset.controls=[dose]"]
    here("node-train", *CSV, *words, *NARROW, *QUICK, "run_dir=dated")
    here("node-predict", "run=dated", "out=dated_out.csv")
    table = rows(place / "dated_out.csv")
    assert [row["day"] for row in table[:2]] == ["2024-01-01", "2024-01-02"]
    assert (table[3]["a_observed"] != "nan", table[3]["b_observed"]) == (True, "nan")
    (place / "moved.csv").write_text(DATED)
    here("node-predict", "run=dated", "split=test", "dataset.path=moved.csv", "out=moved_out.csv", "figures=false")
    assert (place / "moved_out.csv").read_bytes() == (place / "dated_out.csv").read_bytes()
    (place / "longer.csv").write_text(DATED + "".join(f"2024-01-{day},,,1\n" for day in range(19, 25)))
    said = here("node-predict", "run=dated", "dataset.path=longer.csv", "out=longer_out.csv")
    assert said.splitlines()[0] == "longer_out.csv: 1 sample, 24 rows"
    assert rows(place / "longer_out.csv")[-1]["day"] == "2024-01-24"


def test_a_series_left_out_and_a_channel_without_a_value_in_test_are_told(here, place):
    lines = [f"{name},{t},{0.5 * t + (name == 'b')},{t if t < 4 else ''}" for name in "ab" for t in range(9)]
    (place / "gaps.csv").write_text("\n".join(["who,day,a,b", *lines, *(f"c,{t},," for t in range(9))]) + "\n")
    words = ["dataset.path=gaps.csv", "dataset.time=day", "dataset.series=who", "model=linear_ar", "run_dir=gaps"]
    said = here("node-train", *CSV, *words, *QUICK)
    left = (
        "1 of 3 samples of test are left out: nothing was observed in what the model sees, or in what it is to predict"
    )
    assert left in said
    assert left in (place / "gaps" / "run.log").read_text()
    assert re.search(r"test rmse of b +nan \(persistence nan\)", said)


def test_many_series_with_times_of_their_own_in_two_processes_are_as_in_one(here, place, begin):
    words = [*CSV, "dataset.path=many.csv", "dataset.series=patient", "dataset.time=t", "dataset.statics=[age]"]
    words += ["dataset.split=series", "dataset.val=2", "dataset.test=2", *NARROW, *QUICK]
    here("node-train", *words, "run_dir=one")
    process = begin(place, "node-train", *words, *HERE, "trainer.devices=2", "run_dir=two")
    _, said = process.communicate()
    assert process.returncode == 0, said
    for tag in ("train/loss", "val/loss", "test/rmse"):
        assert logged(place / "two", tag) == pytest.approx(logged(place / "one", tag), rel=1e-4), tag
    here("node-predict", "run=one", "split=train", "batch_size=3", "out=many_out.csv")  # the last batch has one
    table = rows(place / "many_out.csv")
    names = dict.fromkeys(row["series"] for row in table)
    assert (len(names), set(names) <= set("abcdefgh"), list(names)) == (4, True, sorted(names))
    written = {(name, float(t)): float(value) for name, t, value, _ in csv.reader(MANY.splitlines()[1:])}
    for row in table:
        assert float(row["pressure_observed"]) == pytest.approx(written[row["series"], float(row["t"])], abs=1e-3)
    here("node-predict", "run=one", "dataset.path=many.csv", "out=again_out.csv", "figures=false")
    again = {(row["series"], row["t"]): row["pressure_observed"] for row in rows(place / "again_out.csv")}
    assert len(again) == len(written)
    assert {(row["series"], row["t"]): row["pressure_observed"] for row in table}.items() <= again.items()


def test_equations_are_fitted_and_told_with_their_intervals(here, place):
    exact = ["dataset.val=0", "dataset.test=0", "task.loss=log_mse", "solver.rtol=1e-4"]
    lbfgs = ["optimizer=lbfgs", "scheduler=constant", "trainer.epochs=1", "trainer.updates_per_epoch=3", "logger=jsonl"]
    said = here("node-train", "task=trajectory", "model=known", *exact, *lbfgs, "run_dir=known")
    found = json.loads((place / "known" / "summary.json").read_text())["details"]["parameters"]
    scipy = {"alpha": 0.5402, "beta": 0.02717, "gamma": 0.7964, "delta": 0.02369}
    assert {name: value["value"] for name, value in found.items()} == pytest.approx(scipy, rel=0.01)
    assert json.loads((place / "known" / "summary.json").read_text())["metrics"]["test/log_rmse"] <= 0.2195
    assert all(value["low"] < scipy[name] < value["high"] for name, value in found.items())
    assert re.search(r"alpha +0\.540\d \(0\.4\d+ to 0\.6\d+\)", said)
    assert re.search(r"dhare/dyear += 0\.540\d hare - 0\.0271\d hare lynx", said)


@pytest.mark.parametrize(
    "words",
    [
        ["model=hybrid", "task.strategy=windows", "task.window=5", "model.start=first"],
        ["model=known", "dataset=influenza", "model.equations=sir", "model.fixed={population: 763}"],
        [
            "model=hamiltonian",
            "dataset=pendulum",
            "dataset.val=2",
            "dataset.test=2",
            "dataset.num_times=8",
            "gradient=adjoint",
        ],
        ["model=sindy", "task.match_until=1.0"],
        ["model=neural_ode", "task.strategy=multiple_shooting", "model.start=learned", "gradient=checkpoint"],
        ["model=neural_ode", "task.strategy=growing", "model.augment_dim=1", "solver=dopri5", "solver.rtol=1e-2"],
        ["model=gru", "dataset=storms", "trainer.max_steps=1", "dataset.stride=20"],
    ],
    ids=lambda words: words[0].removeprefix("model=") + words[1].partition("=")[2],
)
def test_every_way_to_fit_trains_and_names_what_it_measures(words, here, place):
    run = "_".join(word.partition("=")[2] for word in words[:2])
    width = ["model.width=8"] if words[0] in ("model=neural_ode", "model=hybrid", "model=hamiltonian") else []
    fixed = [] if any(word.startswith("solver=") for word in words) else NARROW[1:]
    here("node-train", "task=trajectory", *fixed, *width, *QUICK, *words, f"run_dir={run}")
    summary = json.loads((place / run / "summary.json").read_text())
    assert all(map(math.isfinite, summary["metrics"].values()))


def test_a_sweep_with_baselines_is_compared_by_error_of_validation(here):
    words = ["model=neural_ode,gru,linear_ar", *QUICK, "sweep.name=mine"]
    said = here("node-train", "-m", "task=trajectory", *words)
    assert re.search(r"best on validation: outputs/sweeps/mine/\d, val/loss ", said)
    report = here("node-report", "outputs/sweeps/mine", "--show", "test/log_rmse", "test/persistence_log_rmse")
    assert {line.split()[0] for line in report.splitlines() if "1.077" in line} == {"neural_ode", "gru", "linear_ar"}


def test_a_search_minimises_the_forecast_error_of_validation(begin, place):
    without = [f"tune.space.{key}=null" for key in ("optimizer.lr", "optimizer.weight_decay", "trainer.batch_size")]
    how = ["tune.sampler=grid", "tune.trials=2", "tune.name=mine", "trainer.max_steps=2"]
    words = ["task=trajectory", *NARROW[1:], *without, "tune.space.model.width=[2,8]", *how, *HERE]
    said, _ = begin(place, "node-tune", *words).communicate()
    header, first, second, *_ = said[said.index("trial  model.width") :].splitlines()
    assert header.split() == ["trial", "model.width", "runs", "val/loss"]
    assert float(first.split()[3]) <= float(second.split()[3])
