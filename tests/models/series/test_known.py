"""Equations in the user's units against scipy, and what their keys say."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from series_models import FINE, series_model

from node_cli.series import MASK, TARGET, TIMES, VALUES, Units

DOPRI = ("dopri5", FINE)


def observed(units, times, values):
    """A batch of one series, of which all is seen, from times and values in the user's units."""
    scaled = units.scaled(torch.as_tensor(values))[None]
    mask = torch.ones_like(scaled, dtype=torch.bool)
    times = units.scaled_times(torch.as_tensor(times))[None]
    return {TIMES: times, VALUES: scaled, MASK: mask, TARGET: mask, "start": torch.zeros(1, dtype=torch.int64)}


def lotka_volterra(t, y, alpha, beta, gamma, delta):
    return [alpha * y[0] - beta * y[0] * y[1], delta * y[0] * y[1] - gamma * y[1]]


def sir(t, y, beta, gamma, population):
    flow = beta * y[0] * y[1] / population
    return [-flow, flow - gamma * y[1], gamma * y[1]]


def pendulum(t, y, mobility, torque, damping):
    return [mobility * y[1], -torque * np.sin(y[0]) - damping * y[1]]


def van_der_pol(t, y, mu):
    return [y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]


def linear(t, y, a_1_1, a_1_2, a_2_1, a_2_2, b_1, b_2):
    return [a_1_1 * y[0] + a_1_2 * y[1] + b_1, a_2_1 * y[0] + a_2_2 * y[1] + b_2]


CASES = {
    "lotka_volterra": (lotka_volterra, {"alpha": 0.5, "beta": 0.03, "gamma": 0.8, "delta": 0.025}, [30.0, 6.0]),
    "pendulum": (pendulum, {"mobility": 2.0, "torque": 3.0, "damping": 0.1}, [1.0, 0.3]),
    "van_der_pol": (van_der_pol, {"mu": 1.5}, [2.0, 0.3]),
    "linear": (
        linear,
        dict(zip(("a_1_1", "a_1_2", "a_2_1", "a_2_2", "b_1", "b_2"), (-0.1, 1, -1, 0.05, 0.2, 0), strict=True)),
        [1, 2],
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("is_log", [False, True])
def test_solves_the_named_equations_in_the_units_of_the_user(name, is_log):
    right_hand_side, parameters, start = CASES[name]
    times = np.linspace(1900.0, 1904.0, 9)
    if is_log and name != "lotka_volterra":
        return  # their states have signs
    truth = solve_ivp(
        right_hand_side, times[[0, -1]], start, "DOP853", times, args=tuple(parameters.values()), rtol=1e-11, atol=1e-11
    ).y.T
    raw = np.log(truth) if is_log else truth
    units = Units(tuple(raw.mean(0).tolist()), tuple(raw.std(0).tolist()), is_log=is_log, t0=1900.0, time_scale=1.7)
    model = series_model("known", solver=DOPRI, equations=name, parameters=parameters, data={"units": units})
    batch = observed(units, times, truth)
    batch[MASK] = batch[MASK].clone()
    batch[MASK][:, 1:] = False
    for predicted in (model(batch), model.one_step(batch).nan_to_num(0) + torch.eye(9, 1)[None] * model(batch)):
        torch.testing.assert_close(units.values(predicted)[0], torch.as_tensor(truth), rtol=1e-6, atol=1e-6)
    values = model.named_values()
    assert {key: value.item() for key, value in values.items()} == pytest.approx(parameters)


def test_an_epidemic_of_which_the_infected_are_seen():
    times, start = np.arange(6.0), [761.0, 2.0, 0.0]
    truth = solve_ivp(sir, (0, 5), start, "DOP853", times, args=(1.8, 0.45, 763), rtol=1e-11, atol=1e-11).y[1][:, None]
    units = Units((20.0,), (30.0,), is_log=False, t0=0.0, time_scale=0.7)
    model = series_model(
        "known",
        solver=DOPRI,
        data={"num_channels": 1, "units": units},
        equations="sir",
        parameters={"beta": 1.8, "gamma": 0.45},
        fixed={"population": 763},
    )
    batch = observed(units, times, truth)
    torch.testing.assert_close(units.values(model(batch))[0], torch.as_tensor(truth), rtol=1e-6, atol=1e-6)
    assert model.slopes(batch) is None
    assert list(model.named_values()) == ["beta", "gamma"]
    assert model.equations() == [
        "dS/dyear = -1.8 S hare / 763",
        "dhare/dyear = 1.8 S hare / 763 - 0.45 hare",
        "dR/dyear = 0.45 hare",
    ]
