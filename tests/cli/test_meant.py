"""What was meant: the answer to a mistake says what to type instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from node_cli.cli.errors import _missing_choice
from node_cli.cli.overrides import advice

pytestmark = pytest.mark.slow

# What is typed after node-train, and how the answer goes on after `unknown key KEY: `.
UNKNOWN_KEYS = {
    # of another choice of its group
    "solver.num_steps=4": "solver=euler, heun, midpoint, midpoint1, ralston, rk4, rk4_38, torchdiffeq have "
    "solver.num_steps; ",
    "gradient.max_checkpoints=3": "gradient=checkpoint has gradient.max_checkpoints; gradient=direct takes no options",
    "dataset.path=x.npz": "dataset=csv, npz have dataset.path; dataset=digits takes dataset.split_seed,",
    "optimizer.momentum=0.9": "optimizer=sgd has optimizer.momentum; optimizer=adamw takes",
    "scheduler.milestones=[0.5]": "scheduler=step has scheduler.milestones; scheduler=one_cycle takes",
    "model.degree=2": "model=sindy has model.degree; model=odenet takes",
    "num_steps=4": "solver=euler, heun, midpoint, midpoint1, ralston, rk4, rk4_38, torchdiffeq have solver.num_steps;",
    "path=x.npz": "dataset=csv, npz have dataset.path; there are seed,",
    # without its group
    "lr=0.1": "did you mean optimizer.lr? there are seed,",
    "rtol=1e-5": "did you mean solver.rtol? there are",
    "epochs=3": "did you mean trainer.epochs? there are",
    "epoch=3": "did you mean trainer.epochs? there are",
    "width=3": "did you mean model.width? there are",
    "batch_size=8": "did you mean trainer.batch_size or audit.batch_size? there are",
    "learning_rate=0.1": "did you mean optimizer.lr? there are",
    "gpus=2": "did you mean trainer.devices? there are",
    # of another group
    "solver.lr=0.1": "did you mean optimizer.lr? solver=dopri5 takes",
    "model.epochs=3": "did you mean trainer.epochs? model=odenet takes",
    "trainer.learning_rate=3": "did you mean optimizer.lr? trainer=default takes",
    # of another command
    "tune.trials=3": "node-tune has tune; there are seed,",
    "run=outputs/mine": "node-audit, node-eval and node-predict have run; there are seed,",
    "gradients=[direct]": "node-audit has gradients; there are seed,",
    # misspelt
    "datset=moons": "did you mean dataset? there are seed,",
    "datset.flip=true": "did you mean dataset.flip? there are",
    "optmizer.lr=1": "did you mean optimizer.lr? there are",
    "solver.tol=1e-3": "did you mean solver.rtol? solver=dopri5 takes",
    "model.hidden_size=3": "did you mean model.width? model=odenet takes",
    "model.num_block=3": "did you mean model.num_blocks? model=odenet takes",
    "trainer.batchsize=8": "did you mean trainer.batch_size? trainer=default takes",
    "trainer.early_stopping=3": "trainer=default takes trainer.epochs,",
    "logger.tensorboard.flush=3": "did you mean logger.tensorboard.flush_secs? logger takes logger.",
    "logger.wandb=true": "logger takes logger.tensorboard.flush_secs",
}


@pytest.mark.parametrize("word", UNKNOWN_KEYS)
def test_unknown_keys(typed, word: str):
    result = typed("node-train", word)
    assert result.err.startswith(f"node-train: unknown key {word.partition('=')[0]}: {UNKNOWN_KEYS[word]}")
    assert (result.err.count("\n"), result.status, result.out) == (1, 2, "")


def test_a_value_without_a_key(typed):
    assert typed("node-train", "=3").err == "node-train: a value without a key: write key=value\n"


UNREADABLE = {
    "run_dir=a=b": "quote the value, \"run_dir='a=b'\"",
    "run_dir=a#b": "quote the value, \"run_dir='a#b'\"",
    "dataset.path=été.npz": "quote the value, \"dataset.path='été.npz'\"",
    "run_dir=runs;2": "quote the value, \"run_dir='runs;2'\"",
    "run_dir=a&b": "quote the value, \"run_dir='a&b'\"",
    "run_dir=it's": "quote the value, \"run_dir='it\\'s'\"",
    "run_dir=a~b": "quote the value, \"run_dir='a~b'\"",
    "run_dir=~/runs": "~ stands for no folder here, run_dir=$HOME/runs",
    "run_dir==a": "one = is enough, run_dir=a",
    "seed=0,1,": "there is nothing before or after a comma, write seed=0,1",
    "seed=,1": "there is nothing before or after a comma, write seed=1",
    "seed=0,,1": "there is nothing before or after a comma, write seed=0,1",
    "optimizer.betas=[0.9,0.999": "1 brackets open and 0 close in it",
    "optimizer.betas=0.9]": "0 brackets open and 1 close in it",
    "optimizer.lr = 0.1": "leave the spaces out, optimizer.lr=0.1",
    "optimizer.lr": "write key=value, without spaces",
    "modèle.width=3": "no key is called modèle.width",
}


@pytest.mark.parametrize("word", UNREADABLE)
def test_words_that_cannot_be_read(typed, word: str):
    result = typed("node-train", word)
    assert result.err == f"node-train: cannot read {word}: {UNREADABLE[word]}\n"
    assert result.status == 2


def test_the_words_to_type_can_be_read(typed):
    """Quoted as the answer says, the shell hands over the value, and no word is unreadable any more."""
    for word in ("run_dir='a=b'", "run_dir='it\\'s'", "run_dir='été'"):
        assert typed("node-train", word, "--cfg", "job").status == 0


@pytest.mark.parametrize(
    ("program", "word", "told"),
    [
        ("node-eval", "mine", "write run=mine"),
        ("node-audit", "mine", "write run=mine"),
        ("node-train", "mine", "write resume=mine"),
        ("node-train", "points.npz", "write dataset=npz dataset.path=points.npz"),
        ("node-eval", "elsewhere", "write key=value, without spaces"),
        ("node-tune", "mine", "write key=value, without spaces"),
    ],
)
def test_a_path_without_a_key(program: str, word: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("points.npz").touch()
    assert advice(word, program) == told


WHOLE = {
    "a list without add -m": (
        ["run_dir=a,b"],
        "run_dir=a,b names several values: add -m to run each, or [...] for one",
    ),
    "a misspelt logger in a list": (
        ["logger=[tensorbord]"],
        "logger=tensorbord does not exist: did you mean tensorboard? there are jsonl, none, tensorboard",
    ),
    "resume=auto anywhere": (
        ["resume=auto"],
        "resume=auto continues what run_dir holds, or starts there: set run_dir=... too",
    ),
    "a run of solved steps called rknet": (
        ["model=rknet", "solver=dopri5"],
        "model=rknet has fixed steps and their gradient, solver=dopri5 chooses its steps: take model=odenet",
    ),
    "an adjoint called rknet": (
        ["model=rknet", "gradient=adjoint"],
        "model=rknet has fixed steps and their gradient, gradient=adjoint solves backwards: take model=odenet",
    ),
    "SLURM where there is none": (
        ["-m", "hydra/launcher=submitit_slurm", "seed=0,1"],
        "hydra/launcher=submitit_slurm needs SLURM, and there is no srun here: start it where jobs are submitted, or",
    ),
    "the config of a sweep": (
        ["-m", "seed=0,1", "--cfg", "job"],
        "-m and --cfg do not go together: leave all but one out",
    ),
    "a launcher without a sweep": (
        ["hydra/launcher=joblib", "seed=0"],
        "hydra/launcher runs the jobs of a sweep: add -m, or leave it out",
    ),
}


@pytest.mark.parametrize(("words", "line"), WHOLE.values(), ids=WHOLE)
def test_whole_command_lines(typed, words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")  # where there is no srun
    result = typed("node-train", *words)
    assert result.err.startswith(f"node-train: {line}")
    assert (result.err.count("\n"), result.status, result.out) == (1, 2, "")
    assert list(tmp_path.iterdir()) == []


def test_a_launcher_of_an_extra_that_is_not_installed():
    """Said of the choices that Hydra then has."""
    error = MissingConfigException("", missing_cfg_file="hydra/launcher/joblib", options=["basic"])
    told = "hydra/launcher=joblib does not exist: it comes with pip install 'node-cli[sweep]'; there are basic"
    assert _missing_choice(error) == told


def test_a_failure_of_all_jobs_is_told_once(typed):
    result = typed("node-train", "-m", "dataset=npz", "dataset.path=no.npz", "seed=0,1,2", "sweep.name=a")
    first, *others, last = result.err.splitlines()
    assert first.startswith("job 0: dataset=npz dataset.path=no.npz seed=0: dataset.path")
    told = [line.removeprefix("job ").partition(": ") for line in others]
    assert [(number, rest.rpartition(": ")[2]) for number, _, rest in told] == [(n, "the same as job 0") for n in "12"]
    assert "3 of 3 jobs did not finish" in last


OWN_PARTS = """
import torch
from torch.utils.data import TensorDataset

class Net(torch.nn.Linear):
    def __init__(self, input_shape, num_outputs):
        super().__init__(*input_shape, num_outputs)

def plain_net():
    return torch.nn.Linear(2, 2)

def dataset():
    return TensorDataset(torch.zeros(3, 2))

class Task:
    def __init__(self):
        pass

def optimizer(params, lr):
    return "SGD"
"""
OWN_MISTAKES = {
    "model Net": "model: its YAML must say _partial_: true, for input_shape, num_outputs come later",
    "model plain_net _partial_": "model: its YAML says _partial_, and nothing comes later: leave it out",
    "dataset dataset": (
        "dataset: ownlab.dataset must give a node_cli.datasets.dataset.Dataset, and gives a "
        "torch.utils.data.dataset.TensorDataset"
    ),
    "task Task": "task: ownlab.Task must give a node_cli.tasks.task.Task, and gives a ownlab.Task",
    "optimizer optimizer _partial_ lr": (
        "optimizer: ownlab.optimizer must give a torch.optim.optimizer.Optimizer, and gives a builtins.str"
    ),
}


@pytest.mark.parametrize("part", OWN_MISTAKES)
def test_parts_of_ones_own_that_do_not_fit(typed, part: str, tmp_path: Path):
    group, name, *more = part.split()
    (tmp_path / "ownlab.py").write_text(OWN_PARTS)
    (tmp_path / "mine" / group).mkdir(parents=True)
    lines = [
        f"_target_: ownlab.{name}",
        *("_partial_: true" if word == "_partial_" else f"{word}: 0.1" for word in more),
    ]
    (tmp_path / "mine" / group / "own.yaml").write_text("\n".join(lines))
    words = ["--config-dir", "mine", f"{group}=own", "packages=[ownlab]", "run_dir=run"]
    result = typed(
        "node-train",
        *words,
        *(["dataset=moons"] if group != "dataset" else []),
        *([] if group == "model" else ["model=mlp"]),
    )
    assert result.err == f"node-train: {OWN_MISTAKES[part]}\n"
    assert result.status == 2
    assert not (tmp_path / "run").exists()


def test_a_learning_rate_that_is_too_high_is_no_fault_of_the_solver(typed):
    words = ["dataset=moons", "model=odenet_mlp", "model.width=8", "solver.max_nfe=200", "trainer.max_steps=9"]
    result = typed("node-train", *words, "optimizer.lr=1e9", "num_threads=1", "logger=none")
    start = (
        r"node-train: step \d: the weights are \S+ times as large as at the start, so lower optimizer.lr first; the ODE"
    )
    assert re.match(start, result.err)
