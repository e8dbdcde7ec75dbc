"""A solve that fails says how, when and what to do; nothing of torchdiffeq's or scipy's comes through."""

import warnings

import pytest
import torch
from parts import ADAPTIVE, FIXED, make_gradient, make_solver, names
from problems import Wave, times
from torch import nn

from node_cli.ode.solution import SolveError, Status

Y0 = torch.ones(2, dtype=torch.float64)


def square(t, y):
    """y' = y^2 from 1: a pole at t = 1."""
    return y**2


def nan_from_half(t, y):
    return y * torch.where(t > 0.5, torch.nan, 1.0)


def failure(name, vector_field, ts=(0.0, 2.0), y0=Y0, **keys):
    with pytest.raises(SolveError) as error:
        make_solver(name, **keys).integrate(vector_field, y0, times(*ts))
    return error.value


def in_a_tuple(vector_field):
    return lambda t, y: tuple(vector_field(t, part) for part in y)


class FailsBackward(nn.Module):
    """A field without trouble forwards, whose derivative `backward` changes."""

    def __init__(self, backward):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.backward = backward

    def forward(self, t, y):
        if y.requires_grad:
            y.register_hook(self.backward)
        return -self.weight * y


def test_the_message_has_time_evaluations_cause_and_advice():
    error = failure("dopri5", square, max_nfe=50)
    assert str(error) == (
        f"the ODE solve failed at t = {error.t:.6g} after 50 evaluations: the evaluations of the vector field reached "
        "solver.max_nfe. Raise it, or raise solver.rtol and solver.atol, or take a fixed-step method (solver=rk4)"
    )
    assert (error.status, error.nfe) == (Status.TOO_MANY_EVALUATIONS, 50)
    assert 0.5 < error.t < 1


@pytest.mark.parametrize("name", names("solver"))
def test_too_many_evaluations(name):
    field = Wave()
    error = failure(name, field, ts=(0.0, 1.0), y0=torch.ones(1, 3, dtype=torch.float64), max_nfe=3)
    assert (error.status, error.nfe, field.calls) == (Status.TOO_MANY_EVALUATIONS, 3, 3)


@pytest.mark.parametrize("method", ["LSODA", "RK45", "RK23", "DOP853", "Radau", "BDF"])
def test_too_many_evaluations_inside_scipy(method):
    assert failure("scipy", square, method=method, max_nfe=5).status is Status.TOO_MANY_EVALUATIONS


def test_an_allowance_that_is_just_enough_is_enough():
    make_solver("rk4", num_steps=4, max_nfe=16).integrate(square, Y0 / 4, times(0, 1))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_too_many_steps(name):
    error = failure(name, square, max_steps=3)
    assert error.status is Status.TOO_MANY_STEPS
    assert "the steps reached solver.max_steps. Raise it" in str(error)


@pytest.mark.parametrize("ts", [(0.0, 2.0), (0.0, -2.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("tuple_state", [False, True], ids=["tensor", "tuple"])
@pytest.mark.parametrize("name", ["dopri5", "dopri8"])
def test_step_underflow_at_a_pole(name, tuple_state, ts):
    def field(t, y):
        return square(t, y) if ts[1] > 0 else -square(t, y)

    state, field = ((Y0, Y0), in_a_tuple(field)) if tuple_state else (Y0, field)
    error = failure(name, field, ts, y0=state, rtol=1e-4, atol=1e-4)
    assert error.status is Status.STEP_UNDERFLOW
    assert abs(error.t) == pytest.approx(1, abs=1e-3)
    assert "the step size underflowed: it no longer moves t. The problem is too stiff for this method" in str(error)


@pytest.mark.parametrize("tuple_state", [False, True], ids=["tensor", "tuple"])
@pytest.mark.parametrize("name", names("solver"))
def test_a_vector_field_that_turns_nan(name, tuple_state):
    state, field = ((Y0, Y0), in_a_tuple(nan_from_half)) if tuple_state else (Y0, nan_from_half)
    error = failure(name, field, y0=state)
    expected = {Status.NON_FINITE, Status.NOT_CONVERGED} if name == "implicit_adams" else {Status.NON_FINITE}
    assert error.status in expected
    assert 0 <= error.t <= 2


@pytest.mark.parametrize("name", [*ADAPTIVE, *FIXED, "scipy"])
def test_a_vector_field_that_is_nan_from_the_start(name):
    error = failure(name, lambda t, y: y * torch.nan)
    assert error.status is Status.NON_FINITE
    assert "the state is no longer finite. The vector field has grown too large" in str(error)


@pytest.mark.parametrize("method", ["LSODA", "RK45", "RK23", "DOP853", "Radau", "BDF"])
def test_nan_inside_scipy_needs_no_bound_to_be_found(method):
    assert failure("scipy", lambda t, y: y * torch.nan, method=method, max_nfe=None).status is Status.NON_FINITE


@pytest.mark.parametrize("name", ["heun3", "rk4", "explicit_adams"])
def test_overflow_of_the_state_in_float32(name):
    error = failure(name, lambda t, y: 10 * y**3, y0=torch.ones(2), ts=(0.0, 1.0))
    assert error.status is Status.NON_FINITE
    assert 0 < error.t <= 1


@pytest.mark.parametrize(
    ("name", "start"), [("euler", 0.75), ("explicit_adams", 0.75), ("midpoint", 0.8), ("rk4", 0.8)]
)
def test_the_last_step_is_looked_at_too(name, start):
    error = failure(name, lambda t, y: y * torch.where(t > start, torch.nan, 1.0), ts=(0.0, 0.9), num_steps=9)
    assert error.status is Status.NON_FINITE
    assert error.t == 0.9


@pytest.mark.parametrize("filters", ["error", "ignore"])
def test_implicit_steps_that_do_not_converge(filters):
    with warnings.catch_warnings():
        warnings.simplefilter(filters)
        error = failure("implicit_adams", lambda t, y: -1000 * y, ts=(0.0, 1.0), num_steps=10)
    assert error.status is Status.NOT_CONVERGED
    assert error.t == pytest.approx(0.2)
    assert "the fixed-point iteration of the implicit step did not converge. Take smaller steps" in str(error)


@pytest.mark.parametrize("tuple_state", [False, True], ids=["tensor", "tuple"])
@pytest.mark.parametrize("method", ["RK45", "DOP853", "BDF"])
def test_scipy_that_stops_early_says_why(method, tuple_state):
    state, field = ((Y0, Y0), in_a_tuple(square)) if tuple_state else (Y0, square)
    error = failure("scipy", field, y0=state, method=method)
    assert error.status is Status.STOPPED_EARLY
    assert error.t == pytest.approx(1, abs=2e-2)
    assert (
        "evaluations: Required step size is less than spacing between numbers; the solver gave up before the end time. "
        "Raise solver.rtol and solver.atol, or take another method"
    ) in str(error)


def test_overflow_inside_scipy_is_no_warning():
    def steep(t, y):
        return 0 * y + 1e200

    ys = make_solver("scipy", method="RK45").integrate(steep, Y0, times(0, 1)).ys
    torch.testing.assert_close(ys[-1], 1e200 * Y0)
    assert failure("scipy", steep, method="DOP853").status is Status.STOPPED_EARLY


def test_scipy_methods_with_a_matrix_refuse_a_large_state():
    y0 = torch.zeros(10_001)
    error = failure("scipy", square, y0=y0, method="Radau")
    assert error.status is Status.TOO_LARGE
    assert "Take an explicit method (solver.method=RK45)" in str(error)
    make_solver("scipy", method="RK45").integrate(square, y0, times(0, 1))


@pytest.mark.parametrize(
    ("name", "keys", "grad", "status"),
    [
        ("dopri5", {"max_nfe": 60}, lambda g: g * 300, Status.TOO_MANY_EVALUATIONS),
        ("dopri5", {"max_steps": 10}, lambda g: g * 300, Status.TOO_MANY_STEPS),
        ("dopri5", {}, lambda g: g * torch.nan, Status.NON_FINITE),
        ("rk4", {}, lambda g: g * torch.nan, Status.NON_FINITE),
        ("implicit_adams", {}, lambda g: g * 1000, Status.NOT_CONVERGED),
        ("scipy", {}, lambda g: g * torch.nan, Status.NON_FINITE),
        ("scipy", {}, lambda g: -(g**2) * 30, Status.STOPPED_EARLY),
    ],
)
def test_a_backward_solve_fails_by_name_too(name, keys, grad, status):
    field = FailsBackward(grad)
    solution = make_gradient("adjoint").solve(make_solver(name, **keys), field, Y0, times(0, 1))
    with pytest.raises(SolveError) as error:
        solution.ys[-1].sum().backward()
    assert error.value.status is status
    assert 0 <= error.value.t <= 1


def test_a_warning_of_the_vector_field_stays_its_own():
    def warns(t, y):
        warnings.warn("look here", UserWarning, stacklevel=1)
        return -y

    for name in ("rk4", "dopri5", "scipy"):
        with pytest.warns(UserWarning, match="look here"):
            make_solver(name).integrate(warns, Y0, times(0, 1))
