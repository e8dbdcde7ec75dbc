import importlib
import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "dataset").glob("*.yaml"))


def load(path):
    """The function that a config names, and its keys."""
    keys = OmegaConf.to_container(OmegaConf.load(path))
    module, _, name = keys.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), name), keys


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_keys_are_the_arguments_and_the_config_holds_every_default(path):
    make, keys = load(path)
    parameters = inspect.signature(make).parameters
    assert set(keys) == set(parameters)
    assert all(parameter.default is inspect.Parameter.empty for parameter in parameters.values())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_has_a_comment(path):
    first, _, *lines = path.read_text().splitlines()
    assert first.startswith("# ")
    assert all(" # " in line for line in lines if not line.startswith("  - "))
