"""Equations and vector fields of the user's own."""

import sys
from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir
from series_data import NAMES

from node_cli.build import build_problem
from node_cli.config import ConfigError, config_dir, resolved
from node_cli.models.series.parts.known_dynamics import known_dynamics
from node_cli.models.series.parts.units import InputUnits
from node_cli.series import Units

UNITS = Units((0.5, 0.2), (1.5, 0.4), is_log=False, t0=10.0, time_scale=2.0)


def decay(t, y, parameters):
    return -parameters["rate"] * y * t


def dosed(t, y, parameters, inputs):
    return parameters["gain"] * inputs[:, :1] - y


def dynamics(equations, parameters, inputs=None, **keys):
    given = {"bounds": None, "fixed": None, "hidden": None, **keys}
    return known_dynamics(
        equations=equations,
        parameters=parameters,
        channel_names=NAMES[:2],
        units=UNITS,
        time_name="year",
        inputs=inputs or InputUnits(),
        **given,
    )


def test_a_function_acts_on_the_state_and_the_time_in_the_units_of_the_user():
    own = dynamics(decay, {"rate": 0.3})
    values = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    y = own.initial(values, torch.zeros_like(values), values[:, :0])
    slope = own.value_slopes(y, own(torch.tensor(0.25), y))
    expected = -0.3 * UNITS.values(values) * (10 + 2 * 0.25) * 2 / torch.tensor(UNITS.std)
    torch.testing.assert_close(slope, expected)
    assert own.equations() == [f"d{name}/dyear = decay(t, y)[{i}], rate = 0.3" for i, name in enumerate(NAMES[:2])]


def test_a_function_may_take_controls_and_statics_in_the_units_of_the_user():
    own = dynamics(dosed, {"gain": 2.0}, inputs=InputUnits((1, UNITS_OF_INPUTS), (1, None)))
    y = torch.zeros(2, 2)
    slope = own(torch.tensor(0.0), y, torch.tensor([[1.0, 5.0], [-1.0, 5.0]]))
    torch.testing.assert_close(slope / own.units.rate, torch.tensor([[14.0, 14.0], [6.0, 6.0]]))


class Scaling:
    """Of one column."""

    mean = (5.0,)
    std = (2.0,)


UNITS_OF_INPUTS = Scaling()


@pytest.mark.parametrize(
    ("equations", "parameters", "message"),
    [
        (decay, None, "parameters must give a starting value to rate, which the equations use"),
        (dosed, {"gain": 1}, "equations must be a function of (t, y, parameters), got one of 4 arguments"),
        (
            lambda t, y, parameters: y[:, 0],
            {},
            "equations must return a tensor of the shape of y, (2, 2), got (2,)",
        ),
        (5, {}, "equations must be one of lotka_volterra, sir, pendulum, van_der_pol, linear, or a function, got 5"),
    ],
)
def test_a_function_that_does_not_fit_is_refused(equations, parameters, message):
    with pytest.raises(ValueError) as error:
        dynamics(equations, parameters)
    assert str(error.value) == message


def test_a_partial_function_has_the_arguments_that_are_left():
    def scaled(t, y, parameters, factor):
        return factor * parameters["rate"] * y

    own = dynamics(partial(scaled, factor=2.0), {"rate": 1.0})
    torch.testing.assert_close(own(torch.tensor(0.0), torch.ones(1, 2)), torch.full((1, 2), 4.0))


MINE = """
import torch
from torch import nn

def mine(t, y, parameters):
    x, z = y.unbind(-1)
    return torch.stack([parameters["growth"] * x, -parameters["growth"] * z], dim=-1)

class Field(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, t, y):
        return self.linear(y)
"""


@pytest.fixture
def mylab(tmp_path, monkeypatch):
    (tmp_path / "mylab_of_series.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("mylab_of_series", None)


def build(*overrides):
    with initialize_config_dir(config_dir(), version_base="1.3"):
        config = compose("train", ["task=trajectory", "device=cpu", *overrides])
    return build_problem(resolved(config)).model


OWN = [
    "model=known",
    "model.equations={_target_: mylab_of_series.mine, _partial_: true}",
    "model.parameters={growth: 0.1}",
]


def test_equations_of_ones_own_come_from_a_package_that_is_named(mylab):
    model = build(*OWN, "packages=[mylab_of_series]")
    assert model.equations() == [
        f"d{name}/dyear = mine(t, y)[{i}], growth = 0.1" for i, name in enumerate(("hare", "lynx"))
    ]
    with pytest.raises(ConfigError, match=r"model\.equations\._target_=mylab_of_series\.mine is not allowed"):
        build(*OWN)


def test_a_vector_field_of_ones_own_takes_the_place_of_the_network(mylab):
    own = "vector_field={_target_: mylab_of_series.Field, _partial_: true}"
    model = build("packages=[mylab_of_series]", f"+{own}", "model.augment_dim=1")
    assert [tuple(p.shape) for p in model.parameters()] == [(3, 3), (3,)]
