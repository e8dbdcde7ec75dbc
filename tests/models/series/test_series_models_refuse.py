"""What models of series refuse, in one line."""

import pytest
import torch
from series_models import series_model

THREE, CONTROLLED, LOG = {"num_channels": 3}, {"num_controls": 1}, {"is_log": True}

REFUSED = [
    ("neural_ode", {"width": 0}, {}, "width must be at least 1, got 0"),
    ("neural_ode", {"num_hidden_layers": 0}, {}, "num_hidden_layers must be at least 1, got 0"),
    ("neural_ode", {"activation": "sine"}, {}, "activation must be one of tanh, relu, softplus, got 'sine'"),
    ("neural_ode", {"augment_dim": -1}, {}, "augment_dim must be at least 0, got -1"),
    ("neural_ode", {"start": "middle"}, {}, "start must be one of first, learned, encoder, last, got middle"),
    ("neural_ode", {"start": "encoder", "encoder_width": 0}, {}, "encoder_width must be at least 1, got 0"),
    (
        "neural_ode",
        {"controls_between": "cubic"},
        CONTROLLED,
        "controls_between must be one of hold, linear, hermite, got cubic",
    ),
    (
        "second_order",
        {"velocities": {"hare": "vole"}},
        {},
        "velocities must pair channels, {position: velocity}, each named once of hare, lynx, got {'hare': 'vole'}",
    ),
    (
        "second_order",
        {"velocities": {"hare": "lynx"}},
        LOG,
        "velocities must be null where the data are logarithms: set dataset.log=false",
    ),
    (
        "hamiltonian",
        {},
        THREE,
        "model=hamiltonian needs an even number of channels: positions, then as many momenta, got 3",
    ),
    (
        "hamiltonian",
        {"activation": "relu"},
        {},
        "activation must be tanh or softplus where the field is a derivative of the network, got relu",
    ),
    (
        "hamiltonian",
        {},
        CONTROLLED,
        (
            "model=hamiltonian uses no controls and no statics, and the dataset has 1 and 0: leave them out of it, or "
            "take model=neural_ode"
        ),
    ),
    ("lagrangian", {}, LOG, "model=lagrangian needs velocities, not their logarithms: set dataset.log=false"),
    (
        "known",
        {"equations": "lotka"},
        {},
        "equations must be one of lotka_volterra, sir, pendulum, van_der_pol, linear, got 'lotka'",
    ),
    ("known", {}, THREE, "equations=lotka_volterra needs 2 channels, got 3 (hare, lynx, owl)"),
    ("known", {"equations": "sir"}, {}, "equations=sir needs one channel (I) or three (S, I, R), got hare, lynx"),
    (
        "known",
        {"equations": "sir"},
        {"num_channels": 1},
        "fixed must give population, or parameters a starting value to train it from: {population: ...}",
    ),
    (
        "known",
        {},
        CONTROLLED,
        (
            "equations=lotka_volterra takes no controls and no statics, and the dataset has some: leave them out, or "
            "give a function of (t, y, parameters, inputs)"
        ),
    ),
    (
        "known",
        {"parameters": {"epsilon": 1}},
        {},
        "parameters must name some of alpha, beta, gamma, delta, got epsilon",
    ),
    ("known", {"parameters": {"alpha": "much"}}, {}, "parameters.alpha must be a number, got much"),
    ("known", {"parameters": {"alpha": -1}}, {}, "parameters.alpha must be above 0, got -1"),
    ("known", {"parameters": 5}, {}, "parameters must be a mapping of names, got 5"),
    (
        "known",
        {"bounds": {"alpha": [2, 1]}},
        {},
        "bounds.alpha must be two numbers, the first one smaller (null: no bound), got [2, 1]",
    ),
    ("known", {"bounds": {"alpha": ["a", 1]}}, {}, "bounds.alpha must be a number, got a"),
    (
        "known",
        {"fixed": {"alpha": 1}, "bounds": {"alpha": [0, 2]}},
        {},
        "fixed.alpha is not trained: leave it out of parameters and bounds",
    ),
    ("known", {"hidden": {"hare": 1}}, {}, "hidden must not name a channel (hare, lynx), got hare"),
    ("hybrid", {"network_penalty": -1}, {}, "network_penalty must be at least 0, got -1"),
    ("sindy", {"degree": 0}, {}, "degree must be at least 1, got 0"),
    ("sindy", {"l1": -0.1}, {}, "l1 must be at least 0, got -0.1"),
    ("sindy", {"threshold": -0.1}, {}, "threshold must be at least 0, got -0.1"),
    ("sindy", {"prune_at": [0.5, 0.2]}, {}, "prune_at must be increasing numbers between 0 and 1, got [0.5, 0.2]"),
    ("gru", {"width": 0}, {}, "width must be at least 1, got 0"),
    ("linear_ar", {"lags": 0}, {}, "lags must be at least 1, got 0"),
]


@pytest.mark.parametrize(("name", "keys", "data", "message"), REFUSED)
def test_refuses_in_one_line(name, keys, data, message):
    with pytest.raises(Exception) as error:
        series_model(name, data=data, **keys)
    cause = error.value.__cause__ or error.value
    assert isinstance(cause, ValueError)
    assert str(cause) == message


def test_a_compiled_step_needs_a_field_that_is_the_same_for_every_batch():
    with pytest.raises(
        ValueError, match=r"^solver\.compile must be none or auto where a dataset has controls or statics"
    ):
        series_model("neural_ode", data=CONTROLLED, solver=("rk4", {"compile": "step"}))


@pytest.mark.parametrize(
    ("name", "keys", "data", "unused"),
    [
        ("neural_ode", {}, {}, {"encoder_width", "controls_between"}),
        ("neural_ode", {"start": "encoder"}, CONTROLLED, set()),
        ("neural_ode", {"start": "encoder"}, {"num_statics": 1}, {"controls_between"}),
        ("sindy", {"start": "encoder", "prune_at": []}, CONTROLLED, {"threshold"}),
        ("sindy", {"start": "encoder", "threshold": 0.0}, CONTROLLED, {"prune_at"}),
        ("hamiltonian", {}, {}, {"encoder_width"}),
        ("gru", {}, {}, {"readout", "noise", "dropout"}),
    ],
)
def test_a_model_knows_which_of_its_keys_have_no_effect(name, keys, data, unused):
    assert set(series_model(name, data=data, **keys).unused) == unused


def test_a_vector_field_of_ones_own_takes_the_place_of_the_keys_of_the_network():
    model = series_model("neural_ode", vector_field=lambda states: torch.nn.Linear(states, states), start="encoder")
    assert set(model.unused) == {"width", "num_hidden_layers", "activation", "time_input", "controls_between"}
