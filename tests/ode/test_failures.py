"""A solve that fails says how, when and what to do."""

import warnings

import pytest
import torch
from parts import ADAPTIVE, FIXED, METHODS, make_gradient, make_solver, names
from problems import Wave, times
from torch import nn

from node_cli.ode.solution import FirstSteps, SolveError, Status
from node_cli.ode.solvers import fallback_of

Y0 = torch.ones(2, dtype=torch.float64)
BATCHINGS = pytest.mark.parametrize("batching", ["joint", "per_sample"])
TUPLES = pytest.mark.parametrize("tuple_state", [False, True], ids=["tensor", "tuple"])


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


# Too much work


def test_the_message_has_time_evaluations_cause_and_advice():
    error = failure("dopri5", square, max_nfe=50)
    assert str(error) == (
        f"the ODE solve failed at t = {error.t:.6g} after 50 evaluations: the evaluations of the vector field reached "
        'max_nfe. Raise it, or raise rtol and atol, or take a fixed-step method (method="rk4")'
    )
    assert (error.status, error.nfe) == (Status.TOO_MANY_EVALUATIONS, 50)
    assert 0.5 < error.t < 1


@pytest.mark.parametrize("name", METHODS)
def test_too_many_evaluations(name):
    field = Wave()
    error = failure(name, field, ts=(0.0, 1.0), y0=torch.ones(1, 3, dtype=torch.float64), max_nfe=2)
    assert (error.status, error.nfe, field.calls) == (Status.TOO_MANY_EVALUATIONS, 2, 2)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_too_many_evaluations_of_samples_with_times_of_their_own(name):
    y0 = torch.tensor([1.0, 0.1], dtype=torch.float64)
    error = failure(name, square, y0=y0, max_nfe=30, batching="per_sample", rtol=1e-6, atol=1e-6)
    assert (error.status, error.nfe) == (Status.TOO_MANY_EVALUATIONS, 30)
    assert 0 < error.t < 1


@pytest.mark.parametrize("name", FIXED)
def test_an_allowance_that_is_just_enough_is_enough(name):
    free = make_solver(name).integrate(square, Y0 / 4, times(0, 1, 2))
    bounded = make_solver(name, max_nfe=free.stats.nfe).integrate(square, Y0 / 4, times(0, 1, 2))
    assert torch.equal(bounded.ys, free.ys)
    assert failure(name, square, y0=Y0 / 4, max_nfe=free.stats.nfe // 2 - 1).nfe == free.stats.nfe // 2 - 1


@BATCHINGS
@pytest.mark.parametrize("name", ADAPTIVE)
def test_bounds_that_are_just_enough_are_enough(name, batching):
    stats = make_solver(name, batching=batching).integrate(square, Y0 / 4, times(0, 2)).stats
    attempts = stats.num_accepted + stats.num_rejected
    bounded = make_solver(name, batching=batching, max_steps=attempts, max_nfe=stats.nfe)
    assert bounded.integrate(square, Y0 / 4, times(0, 2)).stats == stats
    error = failure(name, square, y0=Y0 / 4, batching=batching, max_steps=attempts - 1)
    assert error.status is Status.TOO_MANY_STEPS


@BATCHINGS
@pytest.mark.parametrize("name", ADAPTIVE)
def test_too_many_steps(name, batching):
    error = failure(name, square, max_steps=3, batching=batching)
    assert error.status is Status.TOO_MANY_STEPS
    assert "the steps reached max_steps. Raise it, or raise rtol and atol" in str(error)


def test_a_tolerance_that_the_numbers_cannot_hold():
    """Float32 resolves seven digits: the fault is the tolerance, not the bound."""
    fine = failure("dopri5", square, y0=Y0.float() / 4, max_nfe=500, rtol=1e-12, atol=1e-12)
    assert "evaluations: rtol=1e-12 is finer than float32 can resolve (1.2e-07); the evaluations" in str(fine)
    for keys in ({"y0": Y0 / 4, "rtol": 1e-12}, {"y0": Y0.float() / 4, "rtol": 1e-5}):
        assert "finer than" not in str(failure("dopri5", square, max_nfe=10, **keys))


# Steps that become too short


@pytest.mark.parametrize(
    ("name", "tuple_state", "ts"),
    [*((name, False, (0.0, 2.0)) for name in ADAPTIVE), ("bosh3", True, (0.0, -2.0)), ("dopri5", False, (0.0, -2.0))],
)
def test_step_underflow_at_a_pole(name, tuple_state, ts):
    def field(t, y):
        return square(t, y) if ts[1] > 0 else -square(t, y)

    state, field = ((Y0, Y0), in_a_tuple(field)) if tuple_state else (Y0, field)
    error = failure(name, field, ts, y0=state, rtol=1e-4, atol=1e-4, max_nfe=40000)
    assert error.status is Status.STEP_UNDERFLOW
    assert abs(error.t) == pytest.approx(1, abs=1e-3)
    assert "the step size underflowed: it no longer moves t. The problem is too stiff for this method" in str(error)


@BATCHINGS
def test_a_step_below_the_bound_fails_and_does_not_lower_the_tolerance(batching):
    error = failure("dopri5", square, min_step=1e-3, batching=batching)
    assert error.status is Status.STEP_UNDERFLOW
    assert 0.9 < error.t < 1


@BATCHINGS
def test_a_last_step_may_be_shorter_than_the_bound(batching):
    keys = {"first_step": 0.1, "min_step": 0.1, "max_step": 0.11, "batching": batching}
    solution = make_solver("dopri5", **keys).integrate(lambda t, y: -y, Y0, times(0, 0.005))
    assert solution.stats.step_sizes[0] == 0.005


# What is no number


@TUPLES
@pytest.mark.parametrize("name", names("solver"))
def test_a_vector_field_that_turns_nan(name, tuple_state):
    state, field = ((Y0, Y0), in_a_tuple(nan_from_half)) if tuple_state else (Y0, nan_from_half)
    error = failure(name, field, y0=state)
    assert error.status is Status.NON_FINITE
    assert 0 <= error.t <= 2
    assert (
        "the state is no longer finite. The vector field has grown too large: lower the learning rate, clip gradients "
        "(torch.nn.utils.clip_grad_norm_), or shorten the interval (ts)"
    ) in str(error)


@BATCHINGS
@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_time_at_which_it_turns_nan_is_named(name, batching):
    error = failure(name, nan_from_half, batching=batching)
    assert error.status is Status.NON_FINITE
    assert error.t == pytest.approx(0.5, abs=1e-9)
    assert "failed at t = 0.5 after" in str(error)


@pytest.mark.parametrize("name", FIXED)
def test_the_end_of_the_step_that_turned_nan_is_named(name):
    error = failure(name, nan_from_half, ts=(0.0, 0.4, 0.8, 2.0), num_steps=8)
    assert error.status is Status.NON_FINITE
    assert error.t == pytest.approx(0.6 if name == "euler" else 0.55, rel=1e-12)  # euler evaluates at the start alone


@BATCHINGS
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_vector_field_that_is_no_number_from_the_start(name, value, batching):
    error = failure(name, lambda t, y: y * value, batching=batching)
    assert (error.status, error.t) == (Status.NON_FINITE, 0)
    assert error.nfe < 30


@pytest.mark.parametrize("name", [*FIXED, "scipy", "torchdiffeq"])
def test_a_vector_field_that_is_nan_from_the_start(name):
    assert failure(name, lambda t, y: y * torch.nan).status is Status.NON_FINITE


@BATCHINGS
@pytest.mark.parametrize("start", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_state_that_is_no_number_from_the_start(name, start, batching):
    y0 = torch.tensor([1.0, start], dtype=torch.float64)
    error = failure(name, lambda t, y: -y, y0=y0, batching=batching)
    assert (error.status, error.t) == (Status.NON_FINITE_START, 0)
    assert "look for NaN and infinity in y0, its data" in str(error)
    assert "learning rate" not in str(error)


@BATCHINGS
@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_solve_that_looks_ahead_into_nan_steps_back_and_goes_on(name, batching):
    def walled(t, y):
        """Cannot be evaluated above 1, where the solution never goes."""
        return torch.where(y > 1, torch.nan, 50 * (1 - y))

    y0 = torch.tensor([0.0, 0.5], dtype=torch.float64)
    solver = make_solver(name, first_step=1.0, batching=batching, rtol=1e-5, atol=1e-5)
    solution = solver.integrate(walled, y0, times(0, 0.05))
    assert solution.stats.num_rejected > 0
    torch.testing.assert_close(solution.ys[-1], 1 - (1 - y0) * torch.exp(torch.tensor(-2.5)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["rk4", "rk4_38", "heun"])
def test_overflow_of_the_state_in_float32(name):
    error = failure(name, lambda t, y: 10 * y**3, y0=torch.ones(2), ts=(0.0, 1.0))
    assert error.status is Status.NON_FINITE
    assert 0 < error.t <= 1


@pytest.mark.parametrize(("name", "start"), [("euler", 0.75), ("midpoint", 0.8), ("rk4", 0.8), ("heun", 0.85)])
def test_the_last_step_is_looked_at_too(name, start):
    error = failure(name, lambda t, y: y * torch.where(t > start, torch.nan, 1.0), ts=(0.0, 0.9), num_steps=9)
    assert error.status is Status.NON_FINITE
    assert error.t == 0.9


# Backward solves, and what else there is


@pytest.mark.parametrize(
    ("name", "keys", "grad", "status"),
    [
        ("dopri5", {"max_nfe": 60}, lambda g: g * 300, Status.TOO_MANY_EVALUATIONS),
        ("dopri5", {"max_steps": 10}, lambda g: g * 300, Status.TOO_MANY_STEPS),
        ("dopri5", {}, lambda g: g * torch.nan, Status.NON_FINITE),
        ("rk4", {}, lambda g: g * torch.nan, Status.NON_FINITE),
        ("torchdiffeq", {}, lambda g: g * torch.nan, Status.NON_FINITE),
        ("scipy", {}, lambda g: g * torch.nan, Status.NON_FINITE),
        ("scipy", {}, lambda g: -(g**2) * 30, Status.STOPPED_EARLY),
    ],
)
def test_a_backward_solve_fails_by_name_too(name, keys, grad, status):
    field = FailsBackward(grad)
    solution = make_gradient("adjoint").solve(make_solver(name, **keys), field, Y0, times(0, 1), FirstSteps())
    with pytest.raises(SolveError) as error:
        solution.ys[-1].sum().backward()
    assert error.value.status is status
    assert 0 <= error.value.t <= 1


@pytest.mark.parametrize("name", ADAPTIVE + FIXED)
def test_a_warning_of_the_vector_field_stays_its_own(name):
    def warns(t, y):
        warnings.warn("look here", UserWarning, stacklevel=1)
        return -y

    with pytest.warns(UserWarning, match="look here"):
        make_solver(name).integrate(warns, Y0, times(0, 1))


def test_the_fallback_is_rk4_in_the_steps_of_the_solver():
    solver = make_solver("dopri5", on_failure="fallback", fallback_steps=7)
    fallback = fallback_of(solver)
    assert (fallback.method, fallback.num_steps, fallback.max_nfe, fallback.on_failure) == ("rk4", 7, None, "raise")
    assert fallback.integrate(square, Y0 / 4, times(0, 1)).stats.num_accepted == 7
