"""Run folders: three that `node-train` has written, and made ones; `node-report` as if typed."""

from __future__ import annotations

import copy
import json
import shutil

import pytest

SMALL = ["num_threads=1", "device=cpu", "trainer.epochs=2", "trainer.batch_size=512", "model.width=4"]
TRAINED = {"mlp_1": ["model=mlp", "seed=1"], "mlp_2": ["model=mlp", "seed=2"], "ode": ["model=odenet"]}


@pytest.fixture(scope="session")
def _trained(tmp_path_factory, typed_in):
    folder = tmp_path_factory.mktemp("trained")
    for name, words in TRAINED.items():
        typed_in(folder, "node-train", *SMALL, *words, f"run_dir=outputs/{name}")
    return folder / "outputs"


@pytest.fixture
def trained(_trained, tmp_path):
    """`outputs` with the three runs, ours to change; also the working folder's `outputs` of `typed`."""
    return shutil.copytree(_trained, tmp_path / "outputs")


@pytest.fixture
def typed(typed):
    """`typed("outputs", "--by", "model")`: node-report with these words."""
    return lambda *words: typed("node-report", *map(str, words))


CONFIG = {
    "seed": 0,
    "run_dir": "somewhere",
    "solver": {"_target_": "node_cli.ode.solvers.Adaptive", "method": "dopri5", "rtol": 1e-3},
    "model": {"_target_": "node_cli.models.odenet.OdeNet", "_partial_": True, "width": 4},
}


@pytest.fixture
def make(tmp_path):
    """`make("1", {"test/error": 0.1}, {"model.width": 8})`: a finished run in `outputs/1`, and other keys."""

    def made(name, metrics, config=None, **summary):
        folder = tmp_path / "outputs" / name
        folder.mkdir(parents=True)
        own = copy.deepcopy(CONFIG)
        for key, value in (config or {}).items():
            group, _, last = key.rpartition(".")
            (own[group] if group else own)[last] = value
        content = {"status": "finished", "metrics": metrics, "nfe": {}, "config": own} | summary
        (folder / "summary.json").write_text(json.dumps(content))
        return folder

    return made
