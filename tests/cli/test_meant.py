"""What was meant: the answer to a mistake says what to type instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_cli.cli.unreadable import advice

# What is typed after node-train, and how the answer goes on after `unknown key KEY: `.
UNKNOWN_KEYS = {
    # of another choice of its group
    "solver.num_steps=4": "solver=euler, heun, midpoint, ralston, rk4, rk4_38, torchdiffeq have solver.num_steps; ",
    "gradient.max_checkpoints=3": "gradient=checkpoint has gradient.max_checkpoints; gradient=direct takes no options",
    "dataset.path=x.npz": "dataset=npz has dataset.path; dataset=digits takes dataset.split_seed,",
    "optimizer.momentum=0.9": "optimizer=sgd has optimizer.momentum; optimizer=adamw takes",
    "scheduler.milestones=[0.5]": "scheduler=step has scheduler.milestones; scheduler=one_cycle takes",
    "model.activation=relu": "model=odenet_mlp has model.activation; model=odenet takes",
    "num_steps=4": "solver=euler, heun, midpoint, ralston, rk4, rk4_38, torchdiffeq have solver.num_steps;",
    "path=x.npz": "dataset=npz has dataset.path; there are seed,",
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
    # misspelt
    "datset=moons": "did you mean dataset? there are seed,",
    "datset.flip=true": "did you mean dataset.flip? there are",
    "optmizer.lr=1": "did you mean optimizer.lr? there are",
    "solver.tol=1e-3": "did you mean solver.rtol? solver=dopri5 takes",
    "model.hidden_size=3": "did you mean model.width? model=odenet takes",
    "model.num_layers=3": "did you mean model.num_blocks? model=odenet takes",
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
    "a launcher without a sweep": (
        ["hydra/launcher=joblib", "seed=0"],
        "hydra/launcher runs the cells of a sweep: add -m, or leave it out",
    ),
}


@pytest.mark.parametrize(("words", "line"), WHOLE.values(), ids=WHOLE)
def test_whole_command_lines(typed, words: list[str], line: str, tmp_path: Path):
    result = typed("node-train", *words)
    assert result.err.startswith(f"node-train: {line}")
    assert (result.err.count("\n"), result.status, result.out) == (1, 2, "")
    assert list(tmp_path.iterdir()) == []
