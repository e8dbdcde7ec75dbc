"""Table 2 of the paper and the table of models of about equal size: their jobs, their models and their lines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from node_cli.build import build_problem, build_trainer
from node_cli.cli.compose import CommandLine, hydra_ready
from node_cli.cli.overrides import parse, texts_of
from node_cli.config import resolved

ROW = {"runs": "2", **{f"{name} std": "0.001" for name in ("test/nll", "test/coverage", "seconds.training")}}
ERRORS = {"test/extrapolation_true_rmse": ".0957", "test/interpolation_true_rmse": ".0784", "test/coverage": ".954"}
MEANS = {**ERRORS, "test/nll": ".2807", "parameters": "5700", "steps": "750", "seconds.training": "150.2"}


@pytest.fixture
def table2(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield __import__("table2")
    for name in ("table2", "tables"):
        sys.modules.pop(name)


def row(**own: str) -> dict[str, str]:
    means = {f"{name} mean": value for name, value in MEANS.items()}
    return {**ROW, **means, **{f"{name} std": "" for name in ERRORS if name != "test/coverage"}, **own}


def test_a_job_for_each_model_and_each_kind_of_training(table2):
    grid = [*table2.OF_MODELS.values()]
    line = CommandLine("train", parse([text for text in grid if not text.startswith(("hydra", "num_threads"))]))
    with hydra_ready(line):
        jobs = [texts_of(job.overrides) for job in line.jobs()]
    assert {(job[3], job[2]) for job in jobs} == {
        (f"experiment={name}", f"dataset.train_beyond={beyond}")
        for name in table2.MODELS
        for beyond in ("True", "False")
    }
    assert len(jobs) == 2 * len(table2.MODELS) == 10


def test_models_are_about_equally_large(table2):
    sizes = []
    for name in table2.MODELS:
        line = CommandLine(
            "train",
            parse([f"experiment={name}", "dataset.num_series=8", "dataset.val=2", "dataset.test=2", "device=cpu"]),
        )
        with hydra_ready(line):
            config = resolved(line.compose())
        trainer = build_trainer(config, build_problem(config))
        sizes.append(sum(each.numel() for each in trainer.model.parameters()))
    assert max(sizes) < 1.05 * min(sizes)


def test_lines_have_errors_and_costs_beside_the_paper(table2):
    rows = [
        row(**{"dataset.drop": drop, "experiment": f"table2_{model}"})
        for model in ("rnn", "latent_ode")
        for drop in ("0.0", "0.7")
    ]
    lines = [*table2.markdown(rows)]
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| 30", "latent_ode"],
        ["| 30", "rnn"],
        ["| 100", "latent_ode"],
        ["| 100", "rnn"],
    ]
    assert lines[2] == "| 30 | latent_ode | 2 | 0.0957 | 0.0784 | 95.4 ± 0.1 | 5,700 | 150 ± 0 | .1642 |"


def test_models_trained_beyond_come_first(table2):
    rows = [row(**{"dataset.train_beyond": "false", "experiment": "table2_rnn"})]
    rows += [row(**{"dataset.train_beyond": "true", "experiment": name}) for name in table2.MODELS]
    lines = [*table2.of_models(rows)]
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        *([f"| {name}", "yes"] for name in table2.MODELS.values()),
        ["| gru, autoregressive", "no"],
    ]
    assert lines[3].endswith("| 0.0957 | 0.0784 | 95.4 ± 0.1 | 0.281 ± 0.001 | 5,700 | 750 | 150 ± 0 |")
    assert all(line.count("|") == lines[0].count("|") for line in lines)
