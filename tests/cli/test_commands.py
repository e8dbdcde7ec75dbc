"""What a user types, from --help to a sweep."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from node_cli import __version__

pytestmark = pytest.mark.slow

QUICK = ["model=mlp", "model.width=8", "trainer.epochs=1", "num_threads=1", "device=cpu"]
HEAVY = {"torch", "torchdiffeq", "numpy", "sklearn", "matplotlib", "tensorboard"}
ANSWERS = """
import contextlib, io, json, os, sys
from importlib import import_module
COMPLETED = json.loads(sys.argv.pop(1))
for line in sys.argv[1:]:
    os.environ["COMP_LINE"] = line
    program, *sys.argv[1:] = ["node-train", "--shell-completion", "query=bash"] if line in COMPLETED else line.split()
    main = import_module(f"node_cli.cli.{program.removeprefix('node-')}").main
    if os.fork() == 0:
        status, out = 0, io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            try:
                main()
            except SystemExit as end:
                status = end.code or 0
        print(json.dumps([status, out.getvalue(), sorted(sys.modules)]), flush=True)
        os._exit(0)
    os.wait()
"""
LIGHT = {
    "node-train --help": 0,
    "node-train --version": 0,
    "node-train --cfg job --resolve": 0,
    "node-train model.widht=3": 2,
    "node-train trainer.epochs=ten": 2,
    "node-train solver=rk5": 2,
    "node-train resume=nowhere": 2,
    "node-eval --help": 0,
    "node-eval run=nowhere split=none": 2,
    "node-audit --help": 0,
    "node-audit problem=scala": 2,
    "node-audit gradients=[nope]": 2,
    "node-audit run=nowhere": 2,
}
COMPLETED = {"node-train model=res": "model=resnet", "node-train solver.rt": "solver.rtol="}


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, tuple[int, str, set[str]]]:
    """Status, output and modules of commands, forked from a process that has imported their entry points alone."""
    folder, lines = tmp_path_factory.mktemp("answers"), [*LIGHT, *COMPLETED]
    command, environment = [sys.executable, "-c", ANSWERS, json.dumps([*COMPLETED]), *lines], {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=environment)
    assert list(folder.iterdir()) == []
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {line: (status, out, set(modules)) for line, (status, out, modules) in zip(lines, found, strict=True)}


@pytest.mark.parametrize("line", LIGHT)
def test_answers_without_torch(answers, line: str):
    status, _, modules = answers[line]
    assert status == LIGHT[line]
    assert modules.isdisjoint(HEAVY)


@pytest.mark.parametrize("line", COMPLETED)
def test_tab_completion_offers_choices_and_keys_without_torch(answers, line: str):
    status, out, modules = answers[line]
    assert status == 0
    assert COMPLETED[line] in out.split()
    assert modules.isdisjoint(HEAVY)


def test_help_explains_groups_and_shows_the_commands(typed):
    text = typed("node-train", "--help").out
    for group in ("dataset", "model", "task", "solver", "gradient", "optimizer", "scheduler", "trainer", "logger"):
        assert f"\n{group}: " in text
    for words in (
        "node-train model=resnet",
        "node-train dataset=mnist solver=dopri5 solver.rtol=1e-4 gradient=adjoint gradient.rtol=1e-3",
        "node-train experiment=paper_mnist",
        "node-train -m gradient=direct,adjoint seed=0,1,2",
        "node-train run_dir=outputs/mine resume=auto",
        "node-eval run=outputs/2026-11-21/10-00-00-123456 solver.rtol=1e-6",
        "tensorboard --logdir outputs",
        'eval "$(node-train -sc install=bash)"',
    ):
        assert words in text


def test_version_is_ours(typed):
    assert typed("node-train", "--version").out == f"node-train {__version__}\n"
    assert typed("node-eval", "--version").out == f"node-eval {__version__}\n"


def test_cfg_job_resolve_prints_the_config_and_runs_nothing(typed, tmp_path: Path):
    config = yaml.safe_load(typed("node-train", "model=resnet", "--cfg", "job", "--resolve").out)
    assert config["model"]["num_blocks"] == 6
    assert "${" not in config["run_dir"]
    assert list(tmp_path.iterdir()) == []


def test_a_run_leaves_all_that_the_readme_names(typed, tmp_path: Path):
    result = typed("node-train", *QUICK, "run_dir=mine")
    assert result.status == 0
    assert "test error" in result.out
    assert "solver and gradient have no part in this run: Mlp has no ODE block" in result.out
    folder = tmp_path / "mine"
    names = {path.name for path in folder.iterdir()}
    assert {".hydra", "run.log", "metrics.jsonl", "summary.json", "curves.png", "checkpoints"} <= names
    assert len([name for name in names if name.startswith("events.out.tfevents")]) == 1
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.pt", "best.pt", "step-00000020.pt"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    assert summary["config"]["model"]["width"] == 8
    assert summary["versions"]["node-cli"] == __version__
    assert summary["metrics"]["test/error"] == pytest.approx(1 - summary["metrics"]["test/accuracy"])
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text()) == [*QUICK, "run_dir=mine"]
    assert not any(character in path.name for path in folder.rglob("*") for character in "=, ")


def test_a_run_that_fails_says_so_in_one_line_and_with_status_1(typed, tmp_path: Path):
    result = typed(
        "node-train", "model.width=4", "trainer.max_steps=1", "solver.max_nfe=3", "num_threads=1", "run_dir=mine"
    )
    assert result.status == 1
    assert result.err.count("\n") == 1
    assert result.err.startswith("node-train: step 1: the ODE solve failed at t = 0")
    assert "solver.max_nfe" in result.err
    assert "(run folder: mine)" in result.err
    assert "solver.max_nfe" in (tmp_path / "mine" / "run.log").read_text()


def test_a_sweep_runs_every_combination_in_its_own_folder(typed, tmp_path: Path):
    result = typed("node-train", "-m", *QUICK, "seed=0,1", "optimizer=adam,sgd", "trainer.max_steps=2", "logger=jsonl")
    assert result.status == 0
    (sweep,) = (tmp_path / "outputs" / "sweeps").glob("*/*")
    summaries = [json.loads((sweep / str(job) / "summary.json").read_text()) for job in range(4)]
    jobs = [(s["config"]["seed"], s["config"]["optimizer"]["_target_"]) for s in summaries]
    assert jobs == [(seed, f"torch.optim.{name}") for seed in (0, 1) for name in ("Adam", "SGD")]
    losses = {s["metrics"]["test/loss"] for s in summaries}
    assert len(losses) == 4


OWN_MODEL = """
from torch import nn

class Linear(nn.Sequential):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, bias: bool) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, num_outputs, bias=bias))
"""
OWN_YAML = "_target_: mylab.nets.Linear\n_partial_: true\nbias: true  # add one\n"


def test_a_part_of_ones_own_is_one_file_and_one_yaml(typed, tmp_path: Path):
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "nets.py").write_text(OWN_MODEL)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "linear.yaml").write_text(OWN_YAML)
    words = ["node-train", "--config-dir", "mine", "model=linear", "trainer.epochs=1", "run_dir=run", "num_threads=1"]
    refused = typed(*words)
    assert "packages=[mylab]" in refused.err
    assert not (tmp_path / "run").exists()
    assert typed(*words, "packages=[mylab]", "model.bias=1").err.startswith(
        "node-train: model.bias must be true or false"
    )
    assert typed(*words, "packages=[mylab]").status == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["parameters"] == 650


def test_node_eval_compares_solvers_side_by_side(typed, tmp_path: Path):
    typed("node-train", "model.width=8", "trainer.epochs=1", "num_threads=1", "run_dir=mine", "logger=none")
    summary = json.loads((tmp_path / "mine" / "summary.json").read_text())
    result = typed("node-eval", "run=mine", "solver.rtol=1e-6", "num_threads=1")
    assert result.status == 0
    header, own, other = (line.split("  ") for line in result.out.splitlines()[2:5])

    def nfe(row: list[str]) -> str:
        return [value for value in row if value.strip()][4]

    assert [name.strip() for name in header if name.strip()] == [
        "solver",
        "loss",
        "accuracy",
        "error",
        "NFE",
        "reconstruction",
        "agreement",
    ]
    assert own[0] == "dopri5 rtol=0.001 atol=0.001, its own"
    assert f"{summary['metrics']['test/accuracy']:.4f}" in own
    assert other[0] == "dopri5 rtol=1e-06 atol=1e-06"
    assert float(nfe(other)) > 2 * float(nfe(own))
    verdict = result.out.splitlines()[-1]
    assert verdict.startswith("The result holds under a finer solver, error from 0.")
    assert re.search(r" \(change [\d.e-]+, limit 0.01\), agreement of the predictions ", verdict)
    assert verdict.endswith("so far it does not rest on the steps of dopri5 rtol=0.001 atol=0.001.")
    assert "%" not in result.out


def test_node_eval_says_when_the_network_is_no_ode(typed):
    """Two Euler steps and a large learning rate: what is learned are the steps."""
    typed(
        "node-train",
        "model.width=8",
        "solver=euler",
        "solver.num_steps=1",
        "model.t1=20",
        "trainer.epochs=4",
        "num_threads=1",
        "run_dir=mine",
        "logger=none",
    )
    result = typed("node-eval", "run=mine", "solver=rk4", "solver.num_steps=40", "num_threads=1")
    assert "The network is no ODE any more: its result moves with a finer solver, error from" in result.out
    coarser = typed("node-eval", "run=mine", "solver=euler", "solver.num_steps=1", "num_threads=1")
    assert "makes no more evaluations than" in coarser.out


def test_node_eval_refuses_a_solver_where_nothing_is_solved(typed):
    typed("node-train", *QUICK, "run_dir=mine", "logger=none")
    result = typed("node-eval", "run=mine", "solver=rk4", "num_threads=1")
    assert result.err == "node-eval: solver: Mlp of mine has no ODE block to solve: leave it out\n"
    assert result.status == 2
    assert typed("node-eval", "run=mine/checkpoints/last.pt", "num_threads=1").status == 0


def test_hyperparameters_and_final_metrics_stand_in_the_run_itself(typed, tmp_path: Path):
    typed("node-train", *QUICK, "run_dir=mine", "logger=tensorboard")
    accumulator = EventAccumulator(str(tmp_path / "mine"))
    accumulator.Reload()
    content = accumulator.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["model"].string_value == "Mlp"
    assert hparams["model.width"].number_value == 8
    assert "run_dir" not in hparams
    summary = json.loads((tmp_path / "mine" / "summary.json").read_text())
    (event,) = accumulator.Scalars("test/error")
    assert event.value == pytest.approx(summary["metrics"]["test/error"])
    assert {"test/confusion_matrix", "test/wrong_predictions", "train/inputs"} == set(accumulator.Tags()["images"])


def test_nothing_in_a_foreign_run_folder_is_run(typed, tmp_path: Path):
    """Not even what hides below a part and leads out of node_cli through one of its modules."""
    typed("node-train", *QUICK, "run_dir=mine", "logger=none")
    path = tmp_path / "mine" / ".hydra" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["scheduler"]["warmup"] = config["model"]["width"] = {
        "_target_": "node_cli.training.checkpoint.os.mkdir",
        "path": "owned",
    }
    path.write_text(yaml.safe_dump(config))
    result = typed("node-eval", "run=mine", "num_threads=1")
    assert result.err == (
        "node-eval: model.width._target_=node_cli.training.checkpoint.os.mkdir is not allowed: "
        "a model is what configs/model/ names, or comes from a package that you name on the command line\n"
        "node-eval: scheduler.warmup._target_=node_cli.training.checkpoint.os.mkdir is not allowed: "
        "a scheduler is what configs/scheduler/ names, or comes from a package that you name on the command line\n"
    )
    assert result.status == 2
    assert not (tmp_path / "owned").exists()


OWN_LOGGER = """
from pathlib import Path
from node_cli.loggers.base import Resume
from node_cli.loggers.jsonl import JsonlLogger

class Shout(JsonlLogger):
    def __init__(self, folder: Path, resume: Resume | None, word: str) -> None:
        super().__init__(folder, resume)
        (folder / "shout").write_text(word)
"""


def test_a_logger_of_ones_own(typed, tmp_path: Path):
    (tmp_path / "loudlab.py").write_text(OWN_LOGGER)
    (tmp_path / "mine" / "logger").mkdir(parents=True)
    yaml_text = "shout:\n  _target_: loudlab.Shout\n  _partial_: true\n  word: hey\n"
    (tmp_path / "mine" / "logger" / "shout.yaml").write_text(yaml_text)
    words = ["--config-dir", "mine", "logger=[shout]", "packages=[loudlab]", "run_dir=run"]
    assert typed("node-train", *words, *QUICK).status == 0
    assert (tmp_path / "run" / "shout").read_text() == "hey"
