"""A search space changed on the command line."""

from __future__ import annotations

import pytest
import yaml
from small_studies import DEFAULTS

SPACE = DEFAULTS["space"]
CHANGES = {
    "one word of a range": (
        ["tune.space.optimizer.lr.low=1e-3"],
        {"optimizer.lr": {**SPACE["optimizer.lr"], "low": 1e-3}},
    ),
    "a range instead of choices": (
        ["tune.space.trainer.batch_size={low:16,high:32}"],
        {"trainer.batch_size": {"low": 16, "high": 32}},
    ),
    "choices instead of a range": (["tune.space.optimizer.lr=[0.1,1.0]"], {"optimizer.lr": [0.1, 1.0]}),
    "a range anew": (["tune.space.optimizer.lr={low:1e-2,high:1}"], {"optimizer.lr": {"low": 1e-2, "high": 1}}),
    "one more key": (["tune.space.model.width=[8,16]"], {"model.width": [8, 16]}),
    "two words of one more key": (
        ["+tune.space.model.width.low=8", "tune.space.model.width.high=16"],
        {"model.width": {"low": 8, "high": 16}},
    ),
    "a group": (["tune.space.optimizer=[adam,sgd]"], {"optimizer": ["adam", "sgd"]}),
    "left out": (["~tune.space.optimizer.lr"], {"optimizer.lr": None}),
    "left out by null": (["tune.space.optimizer.lr=null"], {"optimizer.lr": None}),
    "as YAML writes it": (["tune.space={model.width:{low:8,high:16}}"], {"model.width": {"low": 8, "high": 16}}),
}
MISTAKES = {
    "tune.space.optimizer.lr.lwo=1": (
        "tune.space: optimizer.lr.lwo: lwo is not a key of optimizer.lr: there are low, high, log, step, when"
    ),
    "tune.space.optimizer.lr.low=1": "tune.space: optimizer.lr: low must be less than high, got 1 and 0.1",
    "tune.space.optimizer.lr.low=": "tune.space.optimizer.lr.low= has no value",
    "tune.space.model.width=8,16": (
        "tune.space.model.width=8,16 names several values: write tune.space.model.width=[...] for choices"
    ),
    "tune.space.model.wdith=[8,16]": (
        "tune.space: unknown key model.wdith: did you mean model.width? model=mlp takes model.width"
    ),
    "tune.space=3": "tune.space=3 is no search space: write tune.space.KEY={low: ..., high: ...}",
    "~tune.space.optimizer.rl": (
        "tune.space has no optimizer.rl to leave out: "
        "there are optimizer.lr, trainer.batch_size, optimizer.weight_decay"
    ),
}


@pytest.mark.parametrize(("words", "changed"), CHANGES.values(), ids=CHANGES)
def test_what_is_typed_changes_that_and_no_more(typed, words, changed):
    result = typed("node-tune", *words, "--cfg", "job", "-p", "tune.space")
    assert (result.status, result.err) == (0, "")
    assert yaml.safe_load(result.out) == {**SPACE, **changed}


@pytest.mark.parametrize(("word", "line"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_line(typed, tmp_path, word, line):
    result = typed("node-tune", "model=mlp", word)
    assert (result.status, result.err) == (2, f"node-tune: {line}\n")
    assert not (tmp_path / "outputs").exists()
