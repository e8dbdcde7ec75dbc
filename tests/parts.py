"""Solvers and gradients as their YAML describes them, with some keys changed."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf

CONFIGS = Path(__file__).parents[1] / "configs"


def names(group):
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def load(group, name):
    """A part's YAML."""
    return OmegaConf.load(CONFIGS / group / f"{name}.yaml")


def _solvers(target):
    return [name for name in names("solver") if load("solver", name)._target_ == f"node_cli.ode.solvers.{target}"]


ADAPTIVE, FIXED = _solvers("Adaptive"), _solvers("Fixed")
INTERPOLATING = [name for name in ADAPTIVE if load("solver", name).outputs == "interpolate"]


def _part(group, name, keys):
    return instantiate({**load(group, name), **keys}, _convert_="all")


def make_solver(name, **keys):
    return _part("solver", name, keys)


def make_gradient(name, **keys):
    return _part("gradient", name, keys)
