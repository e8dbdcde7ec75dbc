import inspect
import math

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf
from parts import CONFIGS, names

EXCLUDE = (
    "num_steps and step_size exclude each other, got num_steps={} step_size={}: set one of them and the other to null"
)
REFUSED = [
    ("dopri5", "method", "rk4", "method must be one of dopri5, dopri8, bosh3, fehlberg2, adaptive_heun, got rk4"),
    ("dopri5", "rtol", 0.0, "rtol must be positive, got 0.0"),
    ("dopri5", "rtol", math.nan, "rtol must be positive, got nan"),
    ("dopri5", "atol", -1e-3, "atol must be positive, got -0.001"),
    ("dopri5", "first_step", 0.0, "first_step must be positive, got 0.0"),
    ("dopri5", "min_step", -0.1, "min_step must be 0 or more, got -0.1"),
    ("dopri5", "max_step", 0.0, "max_step must be positive, got 0.0"),
    ("dopri5", "safety", 1.0, "safety must be between 0 and 1, got 1.0"),
    ("dopri5", "ifactor", 1.0, "ifactor must be more than 1, got 1.0"),
    ("dopri5", "dfactor", 1.5, "dfactor must be between 0 and 1, got 1.5"),
    ("dopri5", "max_steps", 0, "max_steps must be positive, got 0"),
    ("dopri5", "max_nfe", -1, "max_nfe must be positive, got -1"),
    ("rk4", "method", "dopri5", "method must be one of euler, midpoint, heun2, heun3, rk4, got dopri5"),
    ("rk4", "num_steps", 0, "num_steps must be positive, got 0"),
    ("rk4", "num_steps", None, EXCLUDE.format(None, None)),
    ("rk4", "step_size", 0.1, EXCLUDE.format(4, 0.1)),
    ("rk4", "max_nfe", 0, "max_nfe must be positive, got 0"),
    ("explicit_adams", "step_size", 0.1, EXCLUDE.format(10, 0.1)),
    ("explicit_adams", "max_order", 2, "max_order must be between 3 and 11, got 2"),
    ("explicit_adams", "max_order", 12, "max_order must be between 3 and 11, got 12"),
    ("explicit_adams", "max_nfe", 0, "max_nfe must be positive, got 0"),
    ("implicit_adams", "num_steps", -1, "num_steps must be positive, got -1"),
    ("implicit_adams", "rtol", 0.0, "rtol must be positive, got 0.0"),
    ("implicit_adams", "atol", 0.0, "atol must be positive, got 0.0"),
    ("implicit_adams", "max_iters", 0, "max_iters must be positive, got 0"),
    ("implicit_adams", "max_order", 3, "max_order must be between 4 and 12, got 3"),
    ("implicit_adams", "max_order", 13, "max_order must be between 4 and 12, got 13"),
    ("implicit_adams", "max_nfe", 0, "max_nfe must be positive, got 0"),
    ("scipy", "method", "Adams", "method must be one of RK45, RK23, DOP853, LSODA, Radau, BDF, got Adams"),
    ("scipy", "rtol", -1.0, "rtol must be positive, got -1.0"),
    ("scipy", "rtol", 1e-14, "rtol must be at least 1e-13 for scipy, got 1e-14"),
    ("scipy", "atol", 0.0, "atol must be positive, got 0.0"),
    ("scipy", "max_step", 0.0, "max_step must be positive, got 0.0"),
    ("scipy", "max_nfe", 0, "max_nfe must be positive, got 0"),
]


def message(name, **keys):
    config = {**OmegaConf.load(CONFIGS / "solver" / f"{name}.yaml"), **keys}
    with pytest.raises(ValueError) as error:
        get_class(config.pop("_target_"))(**config)
    return str(error.value)


@pytest.mark.parametrize(("name", "key", "value", "expected"), REFUSED)
def test_refuses_a_value_out_of_range(name, key, value, expected):
    assert message(name, **{key: value}) == expected


def test_step_size_must_be_positive():
    assert message("rk4", num_steps=None, step_size=-0.1) == "step_size must be positive, got -0.1"


def test_max_step_must_exceed_min_step():
    assert message("dopri5", min_step=0.2, max_step=0.1) == "max_step must exceed min_step, got 0.1"


@pytest.mark.parametrize("name", names("solver"))
def test_yaml_holds_every_key_and_python_no_default(name):
    config = OmegaConf.load(CONFIGS / "solver" / f"{name}.yaml")
    parameters = inspect.signature(get_class(config._target_)).parameters
    assert set(config) - {"_target_"} == set(parameters)
    assert {parameter.default for parameter in parameters.values()} == {inspect.Parameter.empty}
    assert config.get("method", name) == name or name == "scipy"
