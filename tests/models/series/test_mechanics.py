"""Positions, velocities, momenta and energies against closed forms."""

import math

import pytest
import torch
from series_data import batch_of
from series_models import FINE, series_model
from torch import nn

from node_cli.series import MASK, TARGET, TIMES, VALUES, Units

DOPRI = ("dopri5", FINE)
UNITS = Units((0.3, -0.2), (0.7, 1.3), is_log=False, t0=1.0, time_scale=0.4)  # an own scale for q, p and time


class Spring(nn.Module):
    """What H = q^2 / 2 + p^2 in the user's units has beside half the square of a scaled state."""

    def __init__(self, energy_scale):
        super().__init__()
        self.energy_scale = energy_scale

    def forward(self, y):
        q, p = UNITS.values(y).unbind(-1)
        return ((q.square() / 2 + p.square()) / self.energy_scale - y.square().sum(-1) / 2)[..., None]


def observed(times, values):
    scaled = UNITS.scaled(values)
    mask = torch.ones_like(scaled, dtype=torch.bool)
    series = torch.arange(len(values))
    return {TIMES: UNITS.scaled_times(times), VALUES: scaled, MASK: mask, TARGET: mask, "series": series}


def swing(frequency):
    """Times, positions and their rates of change of two harmonic oscillations."""
    times = torch.linspace(1.0, 4.0, 7, dtype=torch.float64).expand(2, 7)
    size, phase = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.3], [-1.0]])
    angle = frequency * (times - 1.0) + phase
    return times, size * angle.sin(), size * frequency * angle.cos()


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
def test_hamiltons_equations_in_the_units_of_the_user(gradient):
    model = series_model("hamiltonian", solver=DOPRI, gradient=gradient, data={"units": UNITS}, width=4)
    model.dynamics.network = Spring(model.dynamics.energy_scale)
    times, q, rate = swing(math.sqrt(2))  # q'' = 2 p' = -2 q
    batch = observed(times, torch.stack([q, rate / 2], dim=-1))
    values = model(batch)
    torch.testing.assert_close(values, batch[VALUES], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(model.energy(batch), q.square() / 2 + rate.square() / 4, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
@pytest.mark.parametrize("name", ["hamiltonian", "lagrangian"])
def test_learned_energies_are_conserved_and_have_their_gradients(name, gradient):
    keys = {"width": 5, "num_hidden_layers": 1, "activation": "tanh", "data": {"num_channels": 4}}
    batch = batch_of(C=4, n=2, T=3)
    found = {}
    for method in dict.fromkeys(("direct", gradient)):
        model = series_model(name, solver=DOPRI, gradient=method, **keys)
        values = model(batch)
        energies = model.energy({**batch, VALUES: values.detach()})  # whatever the mask shows
        torch.testing.assert_close(energies, energies[:, :1].expand_as(energies), rtol=1e-6, atol=1e-7)
        values.square().sum().backward()
        found[method] = [p.grad for p in model.parameters()]
    for a, b in zip(found["direct"], found[gradient], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_lagrangian_field_is_solved_without_a_graph_too():
    model, batch = series_model("lagrangian", width=4), batch_of()
    with torch.no_grad():
        without = model(batch)
    with torch.inference_mode():
        inside = model(batch)
    assert torch.equal(model(batch).detach(), without)
    torch.testing.assert_close(inside, without)


class Quadratic(nn.Module):
    """What a Lagrangian has beside v^2 / 2 to be that of a spring, 2 v^2 / 2 - 2 q^2 / 2, scaled."""

    def forward(self, y):
        q, v = y[:, :1], y[:, 1:]
        shift = UNITS.mean[0] / UNITS.std[0]  # q is 0 in the user's units there
        return v.square() / 2 - (UNITS.time_scale * (q + shift)).square()


def test_the_equations_of_euler_and_lagrange_in_the_units_of_the_user():
    model = series_model("lagrangian", solver=DOPRI, data={"units": UNITS}, width=4)
    model.dynamics.network = Quadratic()
    times, q, rate = swing(1.0)  # 2 q'' = -2 q
    batch = observed(times, torch.stack([q, rate], dim=-1))
    torch.testing.assert_close(model(batch), batch[VALUES], rtol=1e-6, atol=1e-7)
    energy = model.energy(batch)
    torch.testing.assert_close(energy, energy[:, :1].expand_as(energy))


class Restoring(nn.Module):
    """Acceleration of a harmonic oscillation, q'' = -q in the user's units, of a scaled state."""

    def forward(self, t, y, inputs=None):
        return -(UNITS.time_scale**2) * (y[:, :1] + UNITS.mean[0] / UNITS.std[0])


def test_the_second_order_takes_a_velocity_channel_in_the_units_of_the_user():
    model = series_model("second_order", solver=DOPRI, data={"units": UNITS}, velocities={"hare": "lynx"}, width=4)
    model.dynamics.field = Restoring()
    times, q, rate = swing(1.0)
    batch = observed(times, torch.stack([q, rate], dim=-1))
    torch.testing.assert_close(model(batch), batch[VALUES], rtol=1e-6, atol=1e-7)
    assert model.slopes(batch).shape == batch[VALUES].shape


class Free(nn.Module):
    """No acceleration."""

    def forward(self, t, y, inputs=None):
        return torch.zeros_like(y[:, : y.shape[1] // 2])


@pytest.mark.parametrize(("start", "used"), [("first", (0, 2)), ("last", (2, 3))])
def test_a_velocity_that_is_not_observed_is_that_between_two_observations(start, used):
    model = series_model("second_order", data={"num_channels": 1}, start=start, width=4)
    model.dynamics.field = Free()
    batch = batch_of(C=1, n=1, T=6)
    batch[MASK][0, :, 0] = torch.tensor([True, False, True, True, False, False])
    values, times = batch[VALUES][0, :, 0], batch[TIMES][0]
    first, second = used
    slope = (values[second] - values[first]) / (times[second] - times[first])
    begin = second if start == "last" else first
    line = values[begin] + slope * (times - times[begin])
    expected = torch.cat([values[[0, 0, 2]], line[3:]]) if start == "last" else line
    torch.testing.assert_close(model(batch)[0, :, 0], expected)
