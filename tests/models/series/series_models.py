"""Models of series as their YAML describes them, on the data of `series_data.py`."""

import inspect

import torch
from hydra.utils import get_object, instantiate
from parts import load, make_gradient, make_solver
from series_data import offers

FINE = {"rtol": 1e-9, "atol": 1e-9, "first_step": "chosen"}


def series_model(
    name, *, solver=("rk4", {}), gradient="direct", data=None, vector_field=None, dtype=torch.float64, **keys
):
    """`model=name` with some keys changed, its weights from seed 0."""
    node = {**load("model", name), **keys}
    node.pop("defaults", None)  # of other groups
    method, settings = solver
    given = {
        **offers(**(data or {})),
        "solver": make_solver(method, **settings),
        "gradient": make_gradient(gradient),
        "vector_field": vector_field,
    }
    wanted = inspect.signature(get_object(node["_target_"])).parameters
    torch.manual_seed(0)
    runtime = {key: value for key, value in given.items() if key in wanted and key not in node}
    return instantiate(node, _convert_="all")(**runtime).to(dtype)
