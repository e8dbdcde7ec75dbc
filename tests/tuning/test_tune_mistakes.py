"""Each mistake in one line, before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from small_studies import DEFAULTS, QUICK

from node_cli.config import ConfigError
from node_cli.training import launched
from node_cli.tuning.search_space import parse
from node_cli.tuning.settings import read_settings

pytestmark = pytest.mark.slow

KNOWN = "val/loss, val/accuracy, val/error, seconds, memory, parameters"
SOUND = "space: {optimizer.lr: {low: 0.1, high: 1}}"
# A search space of the user's own, further words, and what is said.
MISTAKES = {
    "unknown key": (
        "space: {optimizer.rate: {low: 1, high: 2}}",
        [],
        (
            "tune.space: unknown key optimizer.rate: optimizer=adamw takes optimizer.lr, optimizer.betas, "
            "optimizer.eps, optimizer.weight_decay"
        ),
    ),
    "wrong type": (
        "space: {trainer.batch_size: {low: 0.5, high: 8.5}}",
        [],
        (
            "tune.space: trainer.batch_size must be a whole number, got 0.5 (a number)\n"
            "tune.space: trainer.batch_size must be a whole number, got 8.5 (a number)"
        ),
    ),
    "unknown choice": (
        "space: {optimizer: [adam, sdg]}",
        [],
        "optimizer=sdg does not exist: did you mean sgd? there are adam, adam_fast, adamw, adamw_slow, lbfgs, sgd",
    ),
    "low and high": (
        "space: {optimizer.lr: {low: 1, high: 0.1}}",
        [],
        "tune.space: optimizer.lr: low must be less than high, got 1 and 0.1",
    ),
    "conditional key without when": (
        "space: {optimizer: [sgd, adam], optimizer.momentum: {low: 0.0, high: 1.0}}",
        [],
        (
            "tune.space: unknown key optimizer.momentum: optimizer=sgd has optimizer.momentum; "
            "optimizer=adam takes optimizer.lr, optimizer.betas, optimizer.eps, optimizer.weight_decay"
        ),
    ),
    "set and searched": ("", ["optimizer.lr=1"], "optimizer.lr is set and searched: leave one of them out"),
    "a folder for every trial": ("", ["run_dir=mine"], "run_dir is that of each trial: leave it out"),
    "unknown metric": (
        "",
        ["tune.objectives=[val/eror]"],
        f"tune.objectives: a run has no val/eror: there are {KNOWN}",
    ),
    "no solver, no evaluations": (
        "",
        ["tune.objectives=[val/error,nfe/forward]", "tune.pruner=none"],
        f"tune.objectives: a run has no nfe/forward: there are {KNOWN}",
    ),
    "unknown key of tune": (
        "",
        ["tune.trails=3"],
        "unknown key tune.trails: did you mean tune.trials? tune=mine takes ",
    ),
    "part that cannot be built": (
        "",
        ["trainer.eval_batch_size=0"],
        "trainer.eval_batch_size must be at least 1, got 0",
    ),
    "storage that is none": (
        "",
        ["tune.storage=nonsense"],
        "tune.storage: nonsense cannot be reached: Could not parse SQLAlchemy URL from given URL string",
    ),
    "storage that cannot be reached": (
        "",
        ["tune.storage=sqlite:////nowhere/studies.db"],
        (
            "tune.storage: sqlite:////nowhere/studies.db cannot be reached: (sqlite3.OperationalError) unable to open "
            "database file"
        ),
    ),
    "a data base in memory": (
        "",
        ["tune.storage=sqlite://"],
        (
            "tune.storage: sqlite:// cannot be reached: it is in memory, where no other process sees it: name a file, "
            "sqlite:///studies.db"
        ),
    ),
    "a trial of several processes": (
        "",
        ["trainer.devices=2"],
        ("trainer.devices=2: a trial is one process: leave it out, and set tune.workers to train several at once"),
    ),
    "trials of several processes": (
        "space: {trainer.devices: [1, 2]}",
        [],
        ("trainer.devices=2: a trial is one process: leave it out, and set tune.workers to train several at once"),
    ),
    "steps between whole numbers": (
        "space: {trainer.batch_size: {low: 1, high: 2, step: 0.3}}",
        [],
        (
            "tune.space: trainer.batch_size must be a whole number, got 1.0 (a number)\n"
            "tune.space: trainer.batch_size must be a whole number, got 1.9 (a number)"
        ),
    ),
    "name of a sweep": (
        "",
        ["sweep.name=mine"],
        "sweep.name=mine: that is of a sweep: a search has tune.name and tune.workers",
    ),
    "launcher of a sweep": (
        "",
        ["hydra/launcher=joblib"],
        "hydra/launcher=joblib: that is of a sweep: a search has tune.name and tune.workers",
    ),
    "many runs": ("", ["-m"], "a search runs many trials already: leave -m out, or search over the key (tune.space)"),
}
# What a search space and the other keys are refused for on their own.
SPACES = {
    "log from zero": (
        "space: {optimizer.lr: {low: 0, high: 0.1, log: true}}",
        (
            "tune.space: optimizer.lr: a range with log starts above 0 and has no step, "
            "got {'low': 0, 'high': 0.1, 'log': True}"
        ),
    ),
    "no range": (
        "space: {optimizer.lr: 3}",
        "tune.space: optimizer.lr: write {low: ..., high: ...} or a list of choices, got 3",
    ),
    "misspelt word": (
        "space: {optimizer.lr: {low: 0.1, high: 1, logg: true}}",
        "tune.space: optimizer.lr: logg is not allowed here: there are low, high, log, step, when",
    ),
    "when names an unknown key": (
        "space: {optimizer: [adam, sgd], optimizer.momentum: {low: 0, high: 1, when: {optimiser: sgd}}}",
        (
            "tune.space: optimizer.momentum: when names optimiser, which is not searched: there are "
            "optimizer, optimizer.momentum"
        ),
    ),
    "when with a value that never is": (
        "space: {optimizer: [adam, sgd], optimizer.momentum: {low: 0, high: 1, when: {optimizer: adamw}}}",
        "tune.space: optimizer.momentum: when: optimizer is never 'adamw', but adam, sgd",
    ),
}
SETTINGS = {
    "the test split": (
        {"objectives": ["test/error"], "pruner": "none"},
        "tune.objectives: test/error is for the end, once: search by val/error",
    ),
    "pruning with two objectives": (
        {"objectives": ["val/error", "seconds"]},
        (
            "tune.pruner=median compares one metric of validation (val/...) after each epoch, not val/error, seconds: "
            "name one alone, or set tune.pruner=none"
        ),
    ),
    "max of nothing": (
        {"objectives": ["max"]},
        "tune.objectives: write NAME (the less the better) or max NAME, val/loss say, got 'max'",
    ),
    "min": (
        {"objectives": ["min val/error"]},
        "tune.objectives: write NAME (the less the better) or max NAME, val/loss say, got 'min val/error'",
    ),
    "unknown sampler": ({"sampler": "tpy"}, "tune.sampler must be one of tpe, random, grid, got 'tpy'"),
    "no trial": ({"trials": 0}, "tune.trials must be a whole number, 1 or more, got 0"),
    "grid over a range": (
        {"sampler": "grid"},
        ("tune.sampler=grid needs choices, whole numbers or a step, 10,000 values at most: set them for optimizer.lr"),
    ),
    "name": ({"name": "../up"}, "tune.name must be the name of a folder, as mine or lab/mine, got '../up'"),
    "another name of a folder": (
        {"name": "lab/mine/"},
        "tune.name must be the name of a folder, as mine or lab/mine, got 'lab/mine/'",
    ),
    "no storage": ({"storage": ""}, "tune.storage must be null or a URL, sqlite:///studies.db say, got ''"),
    "a storage of numbers": ({"storage": 3}, "tune.storage must be null or a URL, sqlite:///studies.db say, got 3"),
}


def write_space(folder, space, name="mine"):
    """A search space of the user's own, `tune=mine` with `--config-dir folder`."""
    path = Path(folder) / "tune" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({**DEFAULTS, "name": name, "space": space}, sort_keys=False))


@pytest.mark.parametrize(("space", "words", "line"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_leave_nothing(typed, tmp_path, space, words, line):
    write_space(tmp_path / "mine", yaml.safe_load(space or SOUND)["space"])
    result = typed("node-tune", "--config-dir", "mine", "tune=mine", *QUICK, *words)
    assert result.status == 2
    lines = "".join(f"node-tune: {each}\n" for each in line.splitlines())
    assert result.err == lines or (line.endswith(" ") and result.err.startswith(lines.rstrip("\n")))
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(("space", "line"), SPACES.values(), ids=SPACES)
def test_a_search_space_is_refused(space, line):
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_load(space)["space"])
    assert str(caught.value) == line


@pytest.mark.parametrize(("changed", "line"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_is_refused(changed, line):
    with pytest.raises(ConfigError) as caught:
        read_settings({**DEFAULTS, **changed}, endless=["optimizer.lr"])
    assert str(caught.value) == line


DAMAGED_RECORDS = [
    *(5, True, ["words"], {}),
    *("[]", "3", "null", '"words"', "{", "[" * 9000),
    *('{"space": []}', '{"space": [], "objectives": 1, "words": []}', '{"space": [], "objectives": "", "words": {}}'),
]


def test_a_password_is_not_shown(typed):
    result = typed("node-tune", *QUICK, "tune.storage=nonsense://me:secret@host/studies")
    assert result.status == 2
    assert result.err.startswith("node-tune: tune.storage: nonsense://me:***@host/studies cannot be reached: ")


def test_a_study_that_does_not_tell_what_it_was_begun_with(search):
    asked = search(DEFAULTS["space"], trials=1, name="default")
    study = asked.open().study
    for begun in DAMAGED_RECORDS:
        study.set_user_attr("begun", begun)
        with pytest.raises(ConfigError) as caught:
            asked.open()
        line = "tune.name: outputs/studies/default is damaged: it does not tell what it was begun with"
        assert (begun, str(caught.value)) == (begun, line)


def test_a_study_is_joined_by_the_same_search_alone(typed, search):
    asked = search(DEFAULTS["space"], trials=2, name="default")
    asked.open()
    other_words = typed("node-tune", *QUICK, "seed=1")
    assert (other_words.status, other_words.err) == (
        2,
        (
            "node-tune: tune.name: outputs/studies/default was begun with other overrides "
            "(model.width=8 model=mlp trainer.epochs=2): give the same, or another tune.name\n"
        ),
    )
    write_space("mine", {"optimizer.lr": {"low": 1e-4, "high": 1e-2}}, name="default")
    other_space = typed("node-tune", "--config-dir", "mine", "tune=mine", *QUICK)
    assert (other_space.status, other_space.err) == (
        2,
        (
            "node-tune: tune.name: outputs/studies/default was begun with another search space: "
            "give the same, or another tune.name\n"
        ),
    )


def test_a_launcher_of_processes_is_refused(typed, monkeypatch):
    for name in launched.VARIABLES:
        monkeypatch.setenv(name, "1")
    result = typed("node-tune", *QUICK)
    line = "a trial is one process: leave the launcher out, and set tune.workers=N to train N at once"
    assert (result.status, result.err) == (2, f"node-tune: {line}\n")


def test_without_optuna_the_command_says_how_to_get_it(typed, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = typed("node-tune", *QUICK)
    assert (result.status, result.err) == (2, "node-tune: Optuna is not installed: pip install 'node-cli[tune]'\n")


def test_a_folder_that_cannot_be_made_is_one_line(typed, tmp_path):
    (tmp_path / "outputs").write_text("in the way")
    result = typed("node-tune", *QUICK)
    assert result.status == 2
    assert result.err == "node-tune: outputs/studies/default cannot be made: Not a directory\n"
