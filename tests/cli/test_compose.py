"""How command lines are composed."""

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from node_cli.cli import compose
from node_cli.cli.compose import CommandLine, _shipped, checked_config, composed_by, hydra_ready
from node_cli.cli.overrides import parse
from node_cli.config import ConfigError, resolved


def test_jobs_that_choose_the_same_files_read_them_once_and_share_nothing():
    line = CommandLine("train", parse(["model=mlp", "dataset=moons", "seed=0,1", "model.width=3"]))
    _shipped.cache_clear()
    with hydra_ready(line):
        first, second = (checked_config(job) for job in line.jobs())
        first["model"]["width"] = first["dataset"]["noise"] = None
        third = checked_config(CommandLine("train", parse(["dataset=moons", "model=mlp"])))  # in another order
    assert (_shipped.cache_info().hits, _shipped.cache_info().misses) == (1, 2)
    assert (second["seed"], second["model"]["width"]) == (1, 3)
    assert third["model"]["width"] != 3
    assert None not in (third["model"]["width"], third["dataset"]["noise"])


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("node-train model=mlp device=mps trainer.devices=2", 1),
        ("node-eval run=nowhere solver=rk4 solver.num_steps=3", 1),
        ("node-train model=mlp --cfg job", 1),
        ("node-train model=mlp ++model.width=3 device=mps trainer.devices=2", 2),  # the files as they stand, and all
        ("node-train experiment=paper_mnist seed=2 device=mps trainer.devices=2", 2),  # with it, and without
        ("node-train --config-dir mine model=wide seed=2 device=mps trainer.devices=2", 2),  # and without any
        ("node-train model=mlp model.width=[1 --cfg job", 0),
    ],
)
def test_a_command_composes_its_config_once(words, count, typed, monkeypatch, tmp_path):
    write_own(tmp_path / "mine")
    composed = []

    def composing(*args, **settings):
        composed.append(args)
        return compose_by_hydra(*args, **settings)

    compose_by_hydra = compose.compose
    monkeypatch.setattr(compose, "compose", composing)
    _shipped.cache_clear()
    result = typed(*words.split())
    assert (result.status == 0, len(composed)) == (words.endswith("model=mlp --cfg job"), count), result.err


VALUES = [
    *("model.width=3", "seed=2", "init_skip=[head,stem]", "run_dir='a b'", "trainer.clip_norm=null", "num_threads=1.5"),
    *("solver.rtol=1e-5", "solver.atol=[1e-3,1e-4]", "model.width=${trainer.epochs}", "device=true", "seed=???"),
    *("logger=[jsonl]", "model.width=ten", 'precision="float64"', "solver.nope=1", "packages=[]"),
    *("model.width={a: 1}", "sweep.name=x", "trainer.freeze=[a]", "model.width.deep=1"),
    "optimizer.lr=${nope}",
]


def write_own(folder):
    """A model of one's own, and an experiment with it."""
    for name, text in {
        "model/wide.yaml": "defaults: [mlp]\nwidth: ${trainer.epochs}\n",
        "experiment/wide.yaml": "# @package _global_\n"
        "defaults: [{override /model: wide}, {override /dataset: moons}]\nmodel: {width: 7}\nseed: 4\n",
    }.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_set_as_hydra_sets_it(value):
    line = CommandLine("train", parse(["run_dir=x", "sweep.name=y", "optimizer.lr=0.5", value]))
    with hydra_ready(line):
        assert outcome(lambda: composed_by(line).config) == outcome(lambda: resolved(line.compose()))


@pytest.mark.parametrize("words", ["experiment=paper_mnist", "model=wide model.width=3", "experiment=wide model=mlp"])
def test_so_it_is_in_an_experiment_and_in_files_of_ones_own(words, tmp_path):
    write_own(tmp_path)
    values = ["run_dir=x", "sweep.name=y", "trainer.epochs=3", "optimizer.lr=${trainer.epochs}", "init_skip=[a]"]
    line = CommandLine("train", parse([*words.split(), *values]), str(tmp_path) if "wide" in words else None)
    with hydra_ready(line):
        assert outcome(lambda: composed_by(line).config) == outcome(lambda: resolved(line.compose()))


def outcome(composing):
    try:
        return composing()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        return str(error)
