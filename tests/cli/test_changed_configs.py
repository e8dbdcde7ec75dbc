"""Every key of a recorded config, changed in every way: it has no part in the evaluation, or is refused in a line."""

from __future__ import annotations

import copy
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from node_cli.commands.evaluation import run_evaluation
from node_cli.config import ConfigError
from node_cli.runs.folder import RunFolder
from node_cli.runs.outcome import RunFailedError
from node_cli.runs.resume import checkpoints_to_resume
from node_cli.training.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.slow

WORDS = [
    *("dataset=moons", "dataset.num_samples=40", "model=odenet_mlp", "model.width=4", "num_threads=1", "device=cpu"),
    *("trainer.epochs=1", "run_dir=run"),
]
EVAL = {"run": "run", "checkpoint": "best", "split": "test", "num_threads": 1, "device": "cpu", "packages": []}
GONE, BATCH = object(), "eval_batch_size"
CHANGES = {
    "gone": GONE,
    "null": None,
    "text": "nope",
    "0": 0,
    "below 0": -1.5,
    "a long number": 10**400,
    "a list": [1, "a"],
    "a group": {"_target_": "os.mkdir"},
}
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # several times as fast, where there is one
BUILT = ("dataset", "task", "model", "solver", "gradient")  # of a run that is evaluated


@pytest.fixture(scope="module")
def trained(tmp_path_factory, typed_in):
    """A run of an earlier version: its checkpoints do not say what its config was."""
    folder = tmp_path_factory.mktemp("trained")
    typed_in(folder, "node-train", *WORDS)
    for path in (folder / "run" / "checkpoints").glob("*.pt"):
        payload = read_checkpoint(path)
        path.unlink()
        write_checkpoint(path, {key: value for key, value in payload.items() if key != "run"})
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    return Path("run")


def places(tree, place=()):
    for key, value in tree.items():
        yield (*place, key)
        if isinstance(value, dict):
            yield from places(value, (*place, key))


def changed_configs(run, change, counts=lambda place: True):
    """Each place, and the config as it is with that place changed, in its file."""
    path = run / ".hydra" / "config.yaml"
    own = yaml.safe_load(path.read_text())
    for place in filter(counts, list(places(own))):
        config = copy.deepcopy(own)
        node = config
        for key in place[:-1]:
            node = node[key]
        if change is GONE:
            del node[place[-1]]
        else:
            node[place[-1]] = change
        path.write_text(yaml.dump(config, Dumper=Dumper))
        yield place, own


def matters(place):
    return len(place) == 1 or place[0] in BUILT or place[1] == BATCH


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_evaluation(change, run):
    refused = 0
    for _ in changed_configs(run, change, matters):
        with suppress(ConfigError, RunFailedError):
            run_evaluation(EVAL)
            continue
        refused += 1
    assert refused > 10


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_resuming(change, run):
    folder, refused = RunFolder(run), 0
    for place, own in changed_configs(run, change):
        with suppress(ConfigError):
            assert checkpoints_to_resume(own | {"resume": "run"}, folder), place
            continue
        refused += 1
    assert refused > 20 or change is GONE  # which came with a later version, it may be
