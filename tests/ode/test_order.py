"""The order of every method: how its error falls with the step, and with the tolerance."""

import numpy as np
import pytest
import torch
from parts import ADAPTIVE, FIXED, make_solver
from problems import LOGISTIC, PROBLEMS, RUNGE, SWING, times

from node_cli.ode.stepping import Outputs, Step, Stepper
from node_cli.ode.tableaus import ADAPTIVE_METHODS, TABLEAUS

FORWARD, BACKWARD = times(0.2, 0.7, 1.2), times(1.2, 0.7, 0.2)


def slope(xs, ys):
    return np.polyfit(np.log(xs), np.log(ys), 1)[0]


def order_of(method, problem, ts, num_steps):
    """By regression on solves in more and more steps."""
    errors = []
    for n in num_steps:
        solver = make_solver("euler", method=method, num_steps=n)
        errors.append(problem.error(solver.integrate(problem.vector_field, problem.y0(ts), ts), ts))
    assert errors[-1] > 2e-15  # not the rounding
    return slope([1 / n for n in num_steps], errors)


@pytest.mark.parametrize("ts", [times(0, 1, 2), times(2, 1, 0)], ids=["forward", "backward"])
@pytest.mark.parametrize("method", TABLEAUS)
def test_error_falls_with_the_step_to_the_power_of_the_order(method, ts):
    order = TABLEAUS[method].order
    num_steps = (4, 6, 8) if order == 8 else (16, 32, 64)
    assert order_of(method, SWING, ts, num_steps) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("ts", [FORWARD, BACKWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("method", [name for name, tableau in TABLEAUS.items() if tableau.order <= 5])
def test_so_does_that_of_problems_that_are_not_linear(method, problem, ts):
    order = TABLEAUS[method].order
    num_steps = (6, 12, 24) if order == 5 else (16, 32, 64)
    assert order_of(method, problem, ts, num_steps) == pytest.approx(order, abs=0.45)


def first_step(method, problem, t0, h):
    """A stepper after one step, and the state that it started from."""
    y0 = problem.y0(times(t0))
    stepper = Stepper(TABLEAUS[method], problem.vector_field, y0)
    stepper.start(t0, y0)
    stepper.step(t0, t0 + h, y0)
    return stepper, y0


@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_the_error_estimate_falls_with_the_step_to_the_power_of_the_lower_order_plus_one(method):
    tableau = TABLEAUS[method]
    steps = (0.2, 0.1, 0.05) if tableau.order < 8 else (0.5, 0.4, 0.3)
    errors = [first_step(method, LOGISTIC, 0.4, h)[0].error(0.4, 0.4 + h).abs().max().item() for h in steps]
    assert slope(steps, errors) == pytest.approx(tableau.error_order + 1, abs=0.3)


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("bosh3", 3), ("dopri5", 4), ("tsit5", 4), ("dopri8", 5)])
def test_error_inside_a_step_falls_with_the_power_of_the_interpolants_order_plus_one(method, order):
    errors, thetas = [], [0.25, 0.5, 0.75]
    steps = (0.2, 0.1, 0.05) if order < 5 else (0.4, 0.3, 0.2)
    for h in steps:
        stepper, y0 = first_step(method, SWING, 0.4, h)
        exact = SWING.exact(times(0.4, *(0.4 + theta * h for theta in thetas)))
        step = Step(0.4, 0.4 + h, Outputs(), Outputs(range(3), thetas), (0, 1))
        states = stepper.interpolate(step, exact[0])
        assert torch.equal(y0, exact[0])
        errors.append((states - exact[1:]).abs().max().item())
    assert slope(steps, errors) == pytest.approx(order + 1, abs=0.3)


TOLERANCES = {
    "adaptive_heun": (1e-3, 1e-4, 1e-5),
    "bosh3": (1e-3, 1e-5, 1e-7),
    "dopri5": (1e-4, 1e-6, 1e-8),
    "dopri8": (1e-4, 1e-6, 1e-8, 1e-10),
    "tsit5": (1e-4, 1e-6, 1e-8),
}


@pytest.mark.parametrize(
    ("problem", "ts"), [(LOGISTIC, times(-3, 0.5, 3)), (RUNGE, times(3, 0.5, -3))], ids=["forward", "backward"]
)
@pytest.mark.parametrize("batching", ["joint", "per_sample"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_error_falls_in_proportion_to_the_tolerance(name, batching, problem, ts):
    errors = []
    for tolerance in TOLERANCES[name]:
        solver = make_solver(name, rtol=tolerance, atol=tolerance, batching=batching)
        errors.append(problem.error(solver.integrate(problem.vector_field, problem.y0(ts), ts), ts))
        assert errors[-1] < 500 * tolerance
    assert slope(TOLERANCES[name], errors) == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("name", [*ADAPTIVE, *FIXED])
def test_a_tuple_of_states_is_solved_like_each_alone(name):
    ts = times(0, 1, 2)
    keys = {"rtol": 1e-5, "atol": 1e-5} if name in ADAPTIVE else {"num_steps": 50}
    y0 = (torch.tensor([0.2, 0.5], dtype=torch.float64), torch.tensor([[0.9]], dtype=torch.float64))
    solution = make_solver(name, **keys).integrate(lambda t, y: tuple(p * (1 - p) for p in y), y0, ts)
    assert [tuple(part.shape) for part in solution.ys] == [(3, 2), (3, 1, 1)]
    flat = torch.cat([part.reshape(3, -1) for part in solution.ys], dim=1)
    torch.testing.assert_close(flat, LOGISTIC.exact(ts), rtol=0, atol=5e-3 if name == "euler" else 2e-4)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (1, 3), (2, 3, 4, 4)])
@pytest.mark.parametrize("name", ["bosh3", "dopri8", "rk4"])
def test_a_state_of_any_shape(name, shape):
    y0 = torch.linspace(0.2, 0.9, torch.Size(shape).numel(), dtype=torch.float64).view(shape)
    ys = make_solver(name).integrate(LOGISTIC.vector_field, y0, times(0, 1, 2)).ys
    exact = 1 / (1 + (1 / y0 - 1) * torch.exp(-times(0, 1, 2).view(3, *(1,) * len(shape))))
    assert ys.shape == (3, *shape)
    torch.testing.assert_close(ys, exact, rtol=0, atol=2e-3)


def test_a_state_that_does_not_lie_in_one_piece_is_solved_alike():
    y0 = torch.linspace(0.2, 0.9, 24, dtype=torch.float64).view(2, 3, 4).transpose(1, 2)
    for keys in ({}, {"batching": "per_sample"}):
        solver = make_solver("dopri5", **keys)
        ys = solver.integrate(LOGISTIC.vector_field, y0, times(0, 1)).ys
        assert torch.equal(ys, solver.integrate(LOGISTIC.vector_field, y0.contiguous(), times(0, 1)).ys)


@pytest.mark.parametrize("name", [*ADAPTIVE, *FIXED])
def test_a_float32_state_is_solved_in_float32_with_time_in_float64(name):
    seen = []

    def watched(t, y):
        seen.append((t.dtype, t.dim(), y.dtype))
        return RUNGE.vector_field(t, y)

    ts = times(0.2, 0.7, 1.2)
    solver = make_solver(name)
    ys = solver.integrate(watched, RUNGE.y0(ts).float(), ts).ys
    assert set(seen) == {(torch.float32, 0, torch.float32)}
    assert ys.dtype == torch.float32
    torch.testing.assert_close(
        ys.double(), solver.integrate(RUNGE.vector_field, RUNGE.y0(ts), ts).ys, rtol=0, atol=1e-5
    )


def test_time_is_cast_once_to_the_dtype_of_the_state():
    seen = []

    def watched(t, y):
        seen.append(t.item())
        return torch.ones_like(y)

    ts = times(16_777_217.0, 16_777_217.0 + 2048)  # the first is no float32
    stats = make_solver("euler").integrate(watched, torch.zeros(1), ts).stats
    assert stats.step_sizes == [512.0] * 4
    assert seen == [16_777_216.0 + n for n in (0, 512, 1024, 1536)]  # rounded to even
