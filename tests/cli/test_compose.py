"""How command lines are composed."""

from node_cli.cli.compose import CommandLine, _shipped, checked_config, hydra_ready
from node_cli.cli.overrides import parse


def test_jobs_that_choose_the_same_files_read_them_once_and_share_nothing():
    line = CommandLine("train", parse(["model=mlp", "dataset=moons", "seed=0,1", "model.width=3"]))
    _shipped.cache_clear()
    with hydra_ready(line):
        first, second = (checked_config(cell) for cell in line.jobs())
        first["model"]["width"] = first["dataset"]["noise"] = None
        third = checked_config(CommandLine("train", parse(["dataset=moons", "model=mlp"])))  # in another order
    assert (_shipped.cache_info().hits, _shipped.cache_info().misses) == (1, 2)
    assert (second["seed"], second["model"]["width"]) == (1, 3)
    assert third["model"]["width"] != 3
    assert None not in (third["model"]["width"], third["dataset"]["noise"])
