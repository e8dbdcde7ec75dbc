"""examples/own_task: a task that nothing in node_cli knows, through every command."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from node_cli.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EXAMPLE, PAGE = ROOT / "examples" / "own_task", ROOT / "docs" / "extending.md"
OWN = ["--config-dir", "configs", "packages=[oscillators]"]
HERE = ["num_threads=1", "device=cpu"]
SMALL = [
    *("task=forecast", "dataset.num_series=50", "dataset.num_times=6", "solver=rk4", "solver.num_steps=1"),
    *("trainer.epochs=2", "trainer.batch_size=8", "trainer.log_every_steps=1"),
]
RUN = [*SMALL, "trainer.save_every_steps=1", "trainer.keep=9", "audit.every_n_epochs=1"]
CLOCKS = ("time", "time/step_ms", "memory/peak_mb")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A copy of the example, where its commands are typed."""
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("examples") / "own_task"))


@pytest.fixture(scope="module")
def finished(place, typed_in) -> Path:
    typed_in(place, "node-train", *OWN, *RUN, *HERE, "run_dir=finished")
    return place / "finished"


@pytest.fixture
def here(typed, place, monkeypatch):
    """`here("node-eval", "run=finished")` where the example lies; exit status 0, and what was printed."""
    monkeypatch.chdir(place)

    def run(program, *words):
        own = [] if program == "node-report" else ["packages=[oscillators]", *HERE, "--config-dir", "configs"]
        result = typed(program, *words, *own)
        assert result.status == 0, result.err
        return result.out

    return run


def lines(run: Path) -> list[dict[str, float]]:
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{tag: value for tag, value in line.items() if tag not in CLOCKS} for line in read]


def weights(run: Path) -> dict[str, torch.Tensor]:
    payload = read_checkpoint(run / "checkpoints" / "last.pt")
    return {**payload["model"], **{f"best {name}": tensor for name, tensor in payload["best_weights"].items()}}


def last(run: Path, tag: str) -> float:
    return [line[tag] for line in lines(run) if tag in line][-1]


def test_it_is_trained_and_its_own_metrics_are_named(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["objective"] == {"metric": "rmse", "goal": "min"}
    assert set(summary["metrics"]) == {f"{split}/{name}" for split in ("val", "test") for name in ("loss", "rmse")}
    assert summary["choices"]["dataset"] == "oscillators"  # which the task has chosen
    assert summary["choices"]["model"] == "trajectories"
    log = (finished / "run.log").read_text()
    assert re.search(r"epoch 2/2  train/loss \S+  train/mae \S+  val/loss \S+  val/rmse \S+  lr ", log)
    assert re.search(r"INFO   test rmse   ", log)
    assert {line["nfe/forward"] for line in lines(finished) if "nfe/forward" in line} == {
        4 * 5
    }  # of one solve, 6 times


def test_its_epochs_are_audited(finished):
    audits = [line for line in lines(finished) if "audit/cosine" in line]
    assert len(audits) == 2
    assert all(line["audit/pass_relative_error"] < 1e-4 for line in audits)


def test_its_charts_and_its_figure_are_in_tensorboard(finished):
    events = EventAccumulator(str(finished))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/mae", "val/rmse", "test/rmse"} <= set(tags["scalars"])
    assert tags["images"] == ["test/series"]


def test_means_of_an_epoch_are_over_observed_values(finished):
    """Batches of many and of few of them, the last one of two series, do not count alike."""
    (epoch,) = [e for e in read_checkpoint(finished / "checkpoints" / "last.pt")["state"]["history"] if e["epoch"] == 1]
    losses = [line["train/loss"] for line in lines(finished) if "train/loss" in line][:4]
    assert not math.isclose(epoch["train/loss"], sum(n * x for n, x in zip((8, 8, 8, 6), losses, strict=True)) / 30)
    assert min(losses) < epoch["train/loss"] < max(losses)


def test_killed_and_resumed_it_is_the_same_to_the_last_bit(place, finished, here, begin):
    run, process = place / "killed", begin(place, "node-train", *OWN, *RUN, *HERE, "run_dir=killed")
    while not (run / "checkpoints" / "step-00000003.pt").exists():
        assert process.poll() is None, process.said()
        time.sleep(0.005)
    process.kill()
    process.wait()
    here("node-train", "resume=killed")
    assert lines(run) == lines(finished)
    assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in weights(finished).items())


def test_two_processes_are_one_but_for_rounding(place, finished, begin):
    """Each has half of the series of a batch, and another number of observed values."""
    words = [*OWN, *SMALL, *HERE, "trainer.devices=2", "logger=jsonl", "run_dir=two"]
    process = begin(place, "node-train", *words)
    _, said = process.communicate()
    assert process.returncode == 0, said
    two = lines(place / "two")
    for tag in ("train/loss", "train/mae", "val/rmse", "test/rmse", "nfe/forward"):
        expected = [line[tag] for line in lines(finished) if tag in line]
        assert [line[tag] for line in two if tag in line] == pytest.approx(expected, rel=1e-4), tag
    for name, tensor in weights(finished).items():
        torch.testing.assert_close(weights(place / "two")[name], tensor, rtol=1e-3, atol=1e-5)


def test_it_is_evaluated_under_another_solver(finished, here):
    said = here("node-eval", "run=finished", "solver.num_steps=4")
    table = [line.split() for line in said.splitlines() if line.startswith(("solver", "rk4"))]
    assert table[0] == ["solver", "loss", "rmse", "NFE", "reconstruction", "agreement"]
    rmse = float(table[1][5])  # after "rk4 num_steps=1, its own" and the loss
    assert rmse == pytest.approx(last(finished, "test/rmse"), rel=1e-3)
    assert "The result holds under a finer solver, rmse from " in said


def test_it_predicts_a_split_and_new_data(place, finished, here):
    assert here("node-predict", "run=finished", "out=split.npz").endswith("figures: split_series.png\n")
    start = np.load(place / "split.npz")["series"][:, 0]
    np.savez(place / "new.npz", start=start)
    assert here("node-predict", "run=finished", "dataset.path=new.npz", "out=new.csv") == "new.csv: 10 samples\n"
    with np.load(place / "split.npz") as split, (place / "new.csv").open() as file:
        assert sorted(split.files) == ["failed", "mask", "series", "values"]
        header, *rows = [line.rstrip("\n").split(",") for line in file]
        series = split["series"].reshape(10, -1)
    assert header == [*(f"series_{time}_{channel}" for time in range(6) for channel in range(2)), "failed"]
    np.testing.assert_allclose(np.array([row[:-1] for row in rows], np.float32), series, rtol=1e-5)


def test_it_is_audited(finished, here):
    said = here("node-audit", "run=finished", "gradients=[direct,adjoint]", "problem.batch_size=4", "logger=none")
    assert "Gradients of Trajectories, a batch of 4 in float32" in said
    assert "Use rk4 direct: the gradient of the loss computed" in said


def test_a_sweep_and_a_report_go_by_its_objective(place, here):
    said = here("node-train", "-m", *SMALL, "model.width=2,16", "sweep.name=mine", "logger=jsonl")
    jobs = {number: last(place / "outputs" / "sweeps" / "mine" / number, "val/rmse") for number in "01"}
    best = min(jobs, key=jobs.get)
    assert f"best on validation: outputs/sweeps/mine/{best}, val/rmse {jobs[best]:.4g}" in said
    assert re.search(r"^model.width +runs +test/rmse +parameters ", here("node-report", "outputs/sweeps/mine"))


def test_a_search_minimises_it(place, here):
    without = [f"tune.space.{key}=null" for key in ("optimizer.lr", "optimizer.weight_decay", "trainer.batch_size")]
    how = ["tune.sampler=grid", "tune.trials=2", "tune.name=mine", "trainer.max_steps=2"]
    said = here("node-tune", *SMALL, *without, "tune.space.model.width=[2,16]", *how)
    header, first, second, *_ = said[said.index("trial  model.width") :].splitlines()
    assert header.split() == ["trial", "model.width", "runs", "val/rmse"]
    assert float(first.split()[3]) <= float(second.split()[3])
    chosen = yaml.safe_load((place / "outputs" / "studies" / "mine" / "experiment" / "best.yaml").read_text())
    assert chosen["model"]["width"] == int(first.split()[1])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["task=forecast", "model=mlp"],
            "model: node_cli.models.mlp.Mlp needs input_shape, num_outputs, which neither",
        ),
        (["task=forecast", "dataset=moons"], "task: oscillators.task.Forecast needs times, which neither its YAML nor"),
        (
            ["dataset=oscillators"],
            "task: node_cli.tasks.classification.Classification needs class_names, which neither",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_refused(words, line, place, typed, monkeypatch):
    monkeypatch.chdir(place)
    result = typed("node-train", *OWN, *words, *HERE, "run_dir=refused")
    assert result.err.startswith(f"node-train: {line}")
    assert ("leave dataset= and model= out, and the task" in result.err) != ("or another dataset\n" in result.err)
    assert (result.status, result.err.count("\n"), (place / "refused").exists()) == (2, 1, False)


def test_a_choice_that_is_typed_or_an_experiments_comes_before_that_of_the_task(here, place):
    experiment = place / "configs" / "experiment" / "other.yaml"
    experiment.parent.mkdir()
    experiment.write_text("# @package _global_\ndefaults:\n  - override /dataset: moons\n")
    chosen = {
        words: yaml.safe_load(here("node-train", "--cfg", "job", "task=forecast", *words))
        for words in ((), ("dataset=arms",), ("experiment=other",), ("model=mlp",))
    }
    places = {words: (config["dataset"]["_target_"], config["model"]["_target_"]) for words, config in chosen.items()}
    assert places == {
        (): ("oscillators.data.oscillators", "oscillators.model.Trajectories"),
        ("dataset=arms",): ("node_cli.datasets.arms.arms", "oscillators.model.Trajectories"),
        ("experiment=other",): ("node_cli.datasets.moons.moons", "oscillators.model.Trajectories"),
        ("model=mlp",): ("oscillators.data.oscillators", "node_cli.models.mlp.Mlp"),
    }


def test_in_float64_it_is_far_more_exact(here, place):
    here("node-train", *SMALL, "precision=float64", "trainer.max_steps=2", "logger=jsonl", "run_dir=float64")
    assert {tensor.dtype for tensor in weights(place / "float64").values() if tensor.dim()} == {torch.float64}
    said = here("node-eval", "run=float64", "solver.num_steps=4")
    assert "The result holds" in said


def test_the_page_shows_the_files_as_they_are():
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert len(blocks) == 7
    for path, shown in blocks:
        content = (EXAMPLE / path).read_text("utf-8")
        assert shown in content, path
