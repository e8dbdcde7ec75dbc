"""Solvers and gradients as their YAML describes them, with some keys changed."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf

CONFIGS = Path(__file__).parents[1] / "configs"
ADAPTIVE = ["adaptive_heun", "bosh3", "dopri5", "dopri8", "fehlberg2"]
FIXED = ["euler", "heun2", "heun3", "midpoint", "rk4"]


def names(group):
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def _part(group, name, keys):
    return instantiate({**OmegaConf.load(CONFIGS / group / f"{name}.yaml"), **keys})


def make_solver(name, **keys):
    return _part("solver", name, keys)


def make_gradient(name, **keys):
    return _part("gradient", name, keys)
