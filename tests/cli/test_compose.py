"""How command lines are composed."""

import pytest

from node_cli.cli import compose
from node_cli.cli.compose import CommandLine, _shipped, checked_config, hydra_ready
from node_cli.cli.overrides import parse


def test_jobs_that_choose_the_same_files_read_them_once_and_share_nothing():
    line = CommandLine("train", parse(["model=mlp", "dataset=moons", "seed=0,1", "model.width=3"]))
    _shipped.cache_clear()
    with hydra_ready(line):
        first, second = (checked_config(job) for job in line.jobs())
        first["model"]["width"] = first["dataset"]["noise"] = None
        third = checked_config(CommandLine("train", parse(["dataset=moons", "model=mlp"])))  # in another order
    assert (_shipped.cache_info().hits, _shipped.cache_info().misses) == (2, 2)
    assert (second["seed"], second["model"]["width"]) == (1, 3)
    assert third["model"]["width"] != 3
    assert None not in (third["model"]["width"], third["dataset"]["noise"])


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("node-train model=mlp device=mps trainer.devices=2", 2),  # the chosen files; and with what is set on top
        ("node-eval run=nowhere solver=rk4 solver.num_steps=3", 2),
        ("node-predict solver=rk4", 1),  # nothing is set
        ("node-train model=mlp --cfg job", 2),
    ],
)
def test_a_command_composes_its_config_once_beside_the_files_that_it_chooses(words, count, typed, monkeypatch):
    composed = []

    def composing(*args, **settings):
        composed.append(args)
        return compose_by_hydra(*args, **settings)

    compose_by_hydra = compose.compose
    monkeypatch.setattr(compose, "compose", composing)
    _shipped.cache_clear()
    result = typed(*words.split())
    assert (result.status == 0, len(composed)) == ("--cfg" in words, count), result.err
