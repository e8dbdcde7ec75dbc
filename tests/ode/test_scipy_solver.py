"""scipy's `solve_ivp` as a solver: accurate, counted, and its failures by name."""

import math
import warnings

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from parts import CONFIGS, make_gradient, make_solver
from problems import LOGISTIC, RUNGE, Growth, Wave, times
from scipy.integrate import solve_ivp

from node_cli.ode.scipy_solver import EXPLICIT_METHODS, STIFF_METHODS, Scipy
from node_cli.ode.solution import FirstSteps, SolveError, Status

METHODS = EXPLICIT_METHODS + STIFF_METHODS
FORWARD, BACKWARD = times(0.2, 0.7, 1.2), times(1.2, 0.7, 0.2)
Y0 = torch.ones(2, dtype=torch.float64)


def square(t, y):
    """y' = y^2 from 1: a pole at t = 1."""
    return y**2


def failure(vector_field, ts=(0.0, 2.0), y0=Y0, **keys):
    with pytest.raises(SolveError) as error:
        make_solver("scipy", **keys).integrate(vector_field, y0, times(*ts))
    return error.value


@pytest.mark.parametrize("ts", [FORWARD, BACKWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_follows_the_tolerance(method, ts):
    solver = make_solver("scipy", method=method, rtol=1e-7, atol=1e-7)
    solution = solver.integrate(RUNGE.vector_field, RUNGE.y0(ts), ts)
    assert torch.equal(solution.ys[0], RUNGE.y0(ts))
    assert RUNGE.error(solution, ts) < 1e-5


def test_is_scipy_called_by_hand_on_a_pendulum():
    keys = {"method": "LSODA", "rtol": 1e-6, "atol": 1e-8}
    expected = solve_ivp(lambda t, y: [y[1], -np.sin(y[0])], (0, 3), [1.0, 0.0], **keys)

    def pendulum(t, y):
        return torch.stack([y[1], -torch.sin(y[0])])

    solution = make_solver("scipy", **keys).integrate(pendulum, torch.tensor([1.0, 0.0]).double(), times(0, 3))
    np.testing.assert_allclose(solution.ys[-1].numpy(), expected.y[:, -1], rtol=1e-12)
    assert solution.stats.nfe == expected.nfev


def test_a_method_for_stiff_problems_needs_fewer_evaluations_on_one():
    def stiff(t, y):
        return -1000 * (y - torch.cos(t))

    nfe = {}
    for method in ("RK45", "Radau"):
        solution = make_solver("scipy", method=method).integrate(stiff, Y0, times(0, 1))
        torch.testing.assert_close(solution.ys[-1], math.cos(1) * Y0, rtol=0, atol=2e-3)
        nfe[method] = solution.stats.nfe
    assert nfe["Radau"] < nfe["RK45"] / 5


def test_a_tuple_of_states_keeps_shapes_and_dtypes():
    ts = times(0, 1, 2)
    y0 = (torch.tensor([0.2, 0.5]), torch.tensor([[0.9]]))
    solution = make_solver("scipy").integrate(lambda t, y: tuple(p * (1 - p) for p in y), y0, ts)
    assert [(tuple(part.shape), part.dtype) for part in solution.ys] == [
        ((3, 2), torch.float32),
        ((3, 1, 1), torch.float32),
    ]
    flat = torch.cat([part.reshape(3, -1).double() for part in solution.ys], dim=1)
    torch.testing.assert_close(flat, LOGISTIC.exact(ts), rtol=0, atol=2e-3)


@pytest.mark.parametrize("ts", [FORWARD, BACKWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("method", METHODS)
def test_counts_every_evaluation_and_steps_that_add_up_to_the_interval(method, ts):
    field = Wave()
    y0 = torch.full((2, 3), 0.5, dtype=torch.float64)
    stats = make_solver("scipy", method=method, max_step=0.2).integrate(field, y0, ts).stats
    assert stats.nfe == field.calls > 0
    assert len(stats.step_sizes) == stats.num_accepted
    assert sum(stats.step_sizes) == pytest.approx(1)
    assert max(stats.step_sizes) <= 0.2 + 1e-12


def test_a_parameter_without_dimensions_has_a_gradient():
    field, y0 = Growth(0.5), torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
    solver = make_solver("scipy", rtol=1e-9, atol=1e-9)
    ys = make_gradient("adjoint").solve(solver, field, y0, times(0.0, 1.0), FirstSteps()).ys
    Growth.loss(ys[-1]).backward()
    true = field.gradients(2.0, 0.0, 1.0)
    assert field.alpha.grad.item() == pytest.approx(true["alpha"], rel=1e-6)
    assert y0.grad.item() == pytest.approx(true["z0"], rel=1e-6)


def test_goes_with_adjoint_alone():
    solver = make_solver("scipy")
    make_gradient("adjoint", rtol=1e-5).check(solver)
    with pytest.raises(ValueError) as error:
        make_gradient("direct").check(solver)
    assert str(error.value) == (
        'gradient="direct" cannot differentiate a solve by Scipy, which runs outside autograd: take gradient="adjoint"'
    )
    with pytest.raises(ValueError, match=r'^norm="semi" .*has no effect on this solver, '):
        make_gradient("adjoint", norm="semi").check(solver)
    with pytest.raises(ValueError, match=r"^rtol must be at least 1e-13 for scipy, got 1e-15$"):
        make_gradient("adjoint", rtol=1e-15).check(solver)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("method", "Adams", "method must be one of RK45, RK23, DOP853, LSODA, Radau, BDF, got Adams"),
        ("rtol", -1.0, "rtol must be 0 or more, got -1.0"),
        ("rtol", 1e-14, "rtol must be at least 1e-13 for scipy, got 1e-14"),
        ("atol", -1.0, "atol must be 0 or more, got -1.0"),
        ("max_step", 0.0, "max_step must be positive, got 0.0"),
        ("max_nfe", 0, "max_nfe must be positive, got 0"),
        ("on_failure", "retry", "on_failure must be one of raise, skip_batch, fallback, got retry"),
        ("fallback_steps", 0, "fallback_steps must be positive, got 0"),
    ],
)
def test_refuses_a_value_out_of_range(key, value, message):
    config = {**OmegaConf.load(CONFIGS / "solver" / "scipy.yaml"), key: value}
    del config["_target_"]
    with pytest.raises(ValueError) as error:
        Scipy(**config)
    assert str(error.value) == message


def test_refuses_states_and_times_that_no_solve_can_start_from():
    def solve(y0, ts):
        return make_solver("scipy").integrate(square, y0, ts)

    with pytest.raises(ValueError, match=r"^y0 must be real, got torch\.complex64: "):
        solve(Y0.to(torch.complex64), times(0, 1))
    with pytest.raises(ValueError, match=r"^ts must be increasing or decreasing, got \[0\.0, 1\.0, 0\.5\]$"):
        solve(Y0, times(0, 1, 0.5))
    assert torch.equal(solve(Y0, times(1, 1)).ys, torch.stack([Y0, Y0]))


@pytest.mark.parametrize("method", METHODS)
def test_too_many_evaluations(method):
    error = failure(square, method=method, max_nfe=5)
    assert (error.status, error.nfe) == (Status.TOO_MANY_EVALUATIONS, 5)


@pytest.mark.parametrize("method", METHODS)
def test_nan_needs_no_bound_to_be_found(method):
    error = failure(lambda t, y: y * torch.where(t > 0.5, torch.nan, 1.0), method=method, max_nfe=None)
    assert error.status is Status.NON_FINITE
    assert 0.5 < error.t <= 2


@pytest.mark.parametrize("tuple_state", [False, True], ids=["tensor", "tuple"])
@pytest.mark.parametrize("method", ["RK45", "DOP853", "BDF"])
def test_a_solve_that_stops_early_says_why(method, tuple_state):
    def field(t, y):
        return tuple(part**2 for part in y) if tuple_state else y**2

    error = failure(field, y0=(Y0, Y0) if tuple_state else Y0, method=method)
    assert error.status is Status.STOPPED_EARLY
    assert error.t == pytest.approx(1, abs=2e-2)
    assert (
        "evaluations: Required step size is less than spacing between numbers; the solver gave up before the end time. "
        "Raise rtol and atol, or take another method"
    ) in str(error)


def test_overflow_is_no_warning():
    def steep(t, y):
        return 0 * y + 1e200

    ys = make_solver("scipy", method="RK45").integrate(steep, Y0, times(0, 1)).ys
    torch.testing.assert_close(ys[-1], 1e200 * Y0)
    assert failure(steep, method="DOP853").status is Status.STOPPED_EARLY


def test_methods_with_a_matrix_refuse_a_large_state():
    y0 = torch.zeros(10_001)
    error = failure(square, y0=y0, method="Radau")
    assert error.status is Status.TOO_LARGE
    assert 'Take an explicit method (options={"solver": "RK45"})' in str(error)
    make_solver("scipy", method="RK45").integrate(square, y0, times(0, 1))


def test_a_warning_of_the_vector_field_stays_its_own():
    def warns(t, y):
        warnings.warn("look here", UserWarning, stacklevel=1)
        return -y

    with pytest.warns(UserWarning, match="look here"):
        make_solver("scipy").integrate(warns, Y0, times(0, 1))
