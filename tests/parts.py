"""Solvers and gradients as their YAML describes them, with some keys changed."""

from copy import deepcopy
from functools import cache
from pathlib import Path

from hydra.utils import get_object
from omegaconf import OmegaConf

ONE_STEP = "midpoint1"  # a method of FIXED again, in a single step between two times
CONFIGS = Path(__file__).parents[1] / "configs"


def names(group):
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


@cache
def load(group, name):
    """A part's YAML, which is read once."""
    config = OmegaConf.load(CONFIGS / group / f"{name}.yaml")
    OmegaConf.set_readonly(config, True)
    return config


@cache
def _values(group, name):
    return OmegaConf.to_container(load(group, name), resolve=True)


def _solvers(target):
    return [name for name in names("solver") if load("solver", name)._target_ == f"node_cli.ode.solvers.{target}"]


ADAPTIVE, FIXED = _solvers("Adaptive"), [name for name in _solvers("Fixed") if name != ONE_STEP]
METHODS = [name for name in names("solver") if name != ONE_STEP]


def make_part(group, name, **keys):
    """What a YAML names, with its values and with those that `keys` change; of a partial one the whole."""
    values = {**deepcopy(_values(group, name)), **keys}
    for of_hydra in ("_partial_", "defaults"):
        values.pop(of_hydra, None)
    return get_object(values.pop("_target_"))(**values)


def make_solver(name, **keys):
    return make_part("solver", name, **keys)


def make_gradient(name, **keys):
    return make_part("gradient", name, **keys)
