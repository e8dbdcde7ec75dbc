import numpy as np
import pytest
import torch
from parts import ADAPTIVE, make_solver
from problems import LOGISTIC, PROBLEMS, RUNGE, times
from scipy.integrate import solve_ivp

FORWARD, BACKWARD = times(0.2, 0.7, 1.2), times(1.2, 0.7, 0.2)


def slope(xs, ys):
    return np.polyfit(np.log(xs), np.log(ys), 1)[0]


@pytest.mark.parametrize("ts", [FORWARD, BACKWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize(
    ("name", "keys", "order", "num_steps"),
    [
        ("euler", {}, 1, (16, 32, 64)),
        ("midpoint", {}, 2, (8, 16, 32)),
        ("heun2", {}, 2, (8, 16, 32)),
        ("heun3", {}, 3, (8, 16, 32)),
        ("rk4", {}, 4, (8, 16, 32)),
        ("explicit_adams", {"max_order": 3}, 3, (32, 64, 128)),
        ("explicit_adams", {}, 4, (32, 64, 128)),
        ("implicit_adams", {"rtol": 1e-13, "atol": 1e-13, "max_iters": 30}, 4, (16, 32, 64)),
    ],
)
def test_error_falls_with_the_step_to_the_power_of_the_order(name, keys, order, num_steps, problem, ts):
    errors = []
    for n in num_steps:
        solution = make_solver(name, **keys, num_steps=n).integrate(problem.vector_field, problem.y0(ts), ts)
        errors.append(problem.error(solution, ts))
    assert slope([1 / n for n in num_steps], errors) == pytest.approx(order, abs=0.25)
    assert errors[-1] > 1e-14  # not the rounding


def test_implicit_adams_of_higher_order_is_more_accurate():
    ts = times(0.0, 1.0)
    errors = []
    for order in (4, 8):
        solver = make_solver("implicit_adams", num_steps=100, max_order=order, rtol=1e-13, atol=1e-13, max_iters=30)
        errors.append(RUNGE.error(solver.integrate(RUNGE.vector_field, RUNGE.y0(ts), ts), ts))
    assert errors[1] < errors[0] / 10


TOLERANCES = {
    "adaptive_heun": (1e-3, 1e-4, 1e-5),
    "bosh3": (1e-3, 1e-5, 1e-7),
    "dopri5": (1e-4, 1e-6, 1e-8),
    "dopri8": (1e-4, 1e-6, 1e-8),
    "fehlberg2": (1e-5, 1e-6, 1e-7),
}


@pytest.mark.parametrize("ts", [times(-3, 0.5, 3), times(3, 0.5, -3)], ids=["forward", "backward"])
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_error_falls_in_proportion_to_the_tolerance(name, problem, ts):
    tolerances = TOLERANCES[name]
    factor = 10_000 if name == "fehlberg2" else 500  # its error estimate is 1/512 of the difference of two slopes
    errors = []
    for rtol in tolerances:
        solution = make_solver(name, rtol=rtol, atol=rtol).integrate(problem.vector_field, problem.y0(ts), ts)
        errors.append(problem.error(solution, ts))
        assert errors[-1] < factor * rtol
    assert slope(tolerances, errors) == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("name", [*ADAPTIVE, "scipy"])
def test_states_between_the_ends_are_as_accurate_as_the_last(name):
    ts = torch.linspace(0, 2, 9, dtype=torch.float64)
    rtol = 1e-4 if name in ("adaptive_heun", "fehlberg2") else 1e-6
    factor = 200 if name == "fehlberg2" else 20
    solution = make_solver(name, rtol=rtol, atol=rtol).integrate(LOGISTIC.vector_field, LOGISTIC.y0(ts), ts)
    assert solution.ys.shape == (9, 3)
    assert torch.equal(solution.ys[0], LOGISTIC.y0(ts))
    assert LOGISTIC.error(solution, ts) < factor * rtol


@pytest.mark.parametrize("method", ["LSODA", "RK45", "RK23", "DOP853", "Radau", "BDF"])
@pytest.mark.parametrize("ts", [FORWARD, BACKWARD], ids=["forward", "backward"])
def test_scipy_methods_follow_the_tolerance(method, ts):
    solver = make_solver("scipy", method=method, rtol=1e-7, atol=1e-7)
    assert RUNGE.error(solver.integrate(RUNGE.vector_field, RUNGE.y0(ts), ts), ts) < 1e-5


def test_agrees_with_scipy_called_by_hand_on_a_pendulum():
    expected = solve_ivp(lambda t, y: [y[1], -np.sin(y[0])], (0, 3), [1.0, 0.0], "DOP853", rtol=1e-12, atol=1e-12)

    def pendulum(t, y):
        return torch.stack([y[1], -torch.sin(y[0])])

    y0, ts = torch.tensor([1.0, 0.0], dtype=torch.float64), times(0, 3)
    for name, keys in (("dopri5", {}), ("dopri8", {}), ("scipy", {"method": "LSODA"})):
        solution = make_solver(name, rtol=1e-9, atol=1e-9, **keys).integrate(pendulum, y0, ts)
        np.testing.assert_allclose(solution.ys[-1].numpy(), expected.y[:, -1], atol=1e-7)


@pytest.mark.parametrize("name", ["dopri5", "rk4", "implicit_adams", "scipy"])
def test_a_tuple_of_states_is_solved_like_each_alone(name):
    ts = times(0, 1, 2)
    y0 = (torch.tensor([0.2, 0.5], dtype=torch.float64), torch.tensor([[0.9]], dtype=torch.float64))
    solution = make_solver(name).integrate(lambda t, y: tuple(p * (1 - p) for p in y), y0, ts)
    assert [tuple(part.shape) for part in solution.ys] == [(3, 2), (3, 1, 1)]
    flat = torch.cat([part.reshape(3, -1) for part in solution.ys], dim=1)
    torch.testing.assert_close(flat, LOGISTIC.exact(ts), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["dopri5", "rk4", "scipy"])
def test_time_is_not_evaluated_past_the_end(name):
    seen = []

    def watched(t, y):
        seen.append(t.item())
        return y * (1 - y)

    ts = times(0.0, 0.5, 1.0)
    make_solver(name).integrate(watched, LOGISTIC.y0(ts), ts)
    assert min(seen) == 0
    assert max(seen) == pytest.approx(1)
    assert max(seen) <= 1
