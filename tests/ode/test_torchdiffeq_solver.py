"""The methods that torchdiffeq has: their orders, their steps, and how they refuse and fail."""

import math
import warnings

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from parts import CONFIGS, make_gradient, make_solver
from problems import LOGISTIC, RUNGE, Wave, times

from node_cli.ode.solution import FirstSteps, SolveError, Status
from node_cli.ode.torchdiffeq_solver import ADAPTIVE_METHODS, GRID_METHODS, Torchdiffeq

pytestmark = pytest.mark.slow

FORWARD, BACKWARD = times(0.2, 0.7, 1.2), times(1.2, 0.7, 0.2)
NEEDED = {
    **{method: {} for method in ADAPTIVE_METHODS},
    **{method: {"num_steps": 4} for method in GRID_METHODS},
    "explicit_adams": {"num_steps": 10, "max_order": 4},
    "implicit_adams": {"num_steps": 20, "max_order": 4, "atol": 1e-4, "max_iters": 10},
}
CONVERGED = {"rtol": 1e-13, "atol": 1e-13, "max_iters": 50}
ONE = torch.ones(1, dtype=torch.float64)


def make(method, **keys):
    return make_solver("torchdiffeq", method=method, **{**NEEDED.get(method, {}), **keys})


def refusal(**keys):
    config = {**OmegaConf.load(CONFIGS / "solver" / "torchdiffeq.yaml"), **keys}
    del config["_target_"]
    with pytest.raises(ValueError) as error:
        Torchdiffeq(**config)
    return str(error.value)


def failure(method, vector_field, ts=(0.0, 2.0), y0=ONE, **keys):
    with pytest.raises(SolveError) as error:
        make(method, **keys).integrate(vector_field, y0, times(*ts))
    return error.value


def slope(xs, ys):
    return np.polyfit(np.log(xs), np.log(ys), 1)[0]


def square(t, y):
    """y' = y^2 from 1: a pole at t = 1."""
    return y**2


# Orders


@pytest.mark.parametrize(("problem", "ts"), [(LOGISTIC, FORWARD), (RUNGE, BACKWARD)], ids=["forward", "backward"])
@pytest.mark.parametrize(
    ("method", "keys", "order", "num_steps"),
    [
        ("euler", {}, 1, (16, 32, 64)),
        ("midpoint", {}, 2, (8, 16, 32)),
        ("heun2", {}, 2, (8, 16, 32)),
        ("heun3", {}, 3, (8, 16, 32)),
        ("rk4", {}, 4, (8, 16, 32)),
        ("explicit_adams", {"max_order": 3}, 3, (32, 64, 128)),
        ("explicit_adams", {}, 4, (32, 64, 128)),
        ("implicit_adams", CONVERGED, 4, (16, 32, 64)),
    ],
)
def test_error_falls_with_the_step_to_the_power_of_the_order(method, keys, order, num_steps, problem, ts):
    errors = []
    for n in num_steps:
        solution = make(method, **{**keys, "num_steps": n}).integrate(problem.vector_field, problem.y0(ts), ts)
        errors.append(problem.error(solution, ts))
    assert slope([1 / n for n in num_steps], errors) == pytest.approx(order, abs=0.25)
    assert errors[-1] > 1e-14  # not the rounding


def test_implicit_adams_of_higher_order_is_more_accurate():
    ts = times(0.0, 1.0)
    errors = []
    for order in (4, 8):
        solver = make("implicit_adams", num_steps=100, max_order=order, **{**CONVERGED, "max_iters": 30})
        errors.append(RUNGE.error(solver.integrate(RUNGE.vector_field, RUNGE.y0(ts), ts), ts))
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize(
    ("problem", "ts"), [(LOGISTIC, times(-3, 0.5, 3)), (RUNGE, times(3, 0.5, -3))], ids=["forward", "backward"]
)
@pytest.mark.parametrize(
    ("method", "tolerances"),
    [
        ("adaptive_heun", (1e-2, 1e-3, 1e-4)),
        ("bosh3", (1e-3, 1e-4, 1e-5)),
        ("dopri5", (1e-4, 1e-6, 1e-8)),
        ("dopri8", (1e-4, 1e-6, 1e-8)),
        ("fehlberg2", (1e-4, 1e-5, 1e-6)),
    ],
)
def test_error_falls_in_proportion_to_the_tolerance(method, tolerances, problem, ts):
    factor = 10_000 if method == "fehlberg2" else 500  # its error estimate is 1/512 of the difference of two slopes
    errors = []
    for rtol in tolerances:
        solution = make(method, rtol=rtol, atol=rtol).integrate(problem.vector_field, problem.y0(ts), ts)
        errors.append(problem.error(solution, ts))
        assert errors[-1] < factor * rtol
    assert slope(tolerances, errors) == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_states_between_the_ends_are_as_accurate_as_the_last(method):
    ts = torch.linspace(0, 2, 9, dtype=torch.float64)
    rtol = 1e-4 if method in ("adaptive_heun", "fehlberg2") else 1e-6
    factor = 200 if method == "fehlberg2" else 20
    solution = make(method, rtol=rtol, atol=rtol).integrate(LOGISTIC.vector_field, LOGISTIC.y0(ts), ts)
    assert torch.equal(solution.ys[0], LOGISTIC.y0(ts))
    assert LOGISTIC.error(solution, ts) < factor * rtol


@pytest.mark.parametrize("method", ["dopri5", "rk4", "implicit_adams"])
def test_a_tuple_of_states_is_solved_like_each_alone(method):
    ts = times(0, 1, 2)
    y0 = (torch.tensor([0.2, 0.5], dtype=torch.float64), torch.tensor([[0.9]], dtype=torch.float64))
    solution = make(method).integrate(lambda t, y: tuple(p * (1 - p) for p in y), y0, ts)
    assert [tuple(part.shape) for part in solution.ys] == [(3, 2), (3, 1, 1)]
    flat = torch.cat([part.reshape(3, -1) for part in solution.ys], dim=1)
    torch.testing.assert_close(flat, LOGISTIC.exact(ts), rtol=0, atol=2e-3)


def test_time_is_float64_and_cast_once_to_the_dtype_of_the_state():
    seen = []

    def watched(t, y):
        seen.append((t.dtype, t.item()))
        return torch.ones_like(y)

    ts = times(16_777_217.0, 16_777_217.0 + 2048)  # the first is no float32
    stats = make("euler").integrate(watched, torch.zeros(1), ts).stats
    assert stats.step_sizes == [512.0] * 4
    assert seen == [(torch.float32, 16_777_216.0 + n) for n in (0, 512, 1024, 1536)]  # rounded to even


# Steps


@pytest.mark.parametrize(("method", "stages"), [("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4)])
def test_fixed_steps_cost_their_stages(method, stages):
    stats = make(method).integrate(square, ONE / 4, times(0, 1)).stats
    assert (stats.nfe, stats.num_accepted, stats.num_rejected) == (4 * stages, 4, 0)


@pytest.mark.parametrize("ts", [FORWARD, BACKWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("method", NEEDED)
def test_counts_every_evaluation_and_steps_that_add_up_to_the_interval(method, ts):
    field = Wave()
    stats = make(method).integrate(field, torch.full((2, 3), 0.5, dtype=torch.float64), ts).stats
    assert stats.nfe == field.calls > 0
    assert len(stats.step_sizes) == stats.num_accepted
    assert min(stats.step_sizes) > 0
    assert sum(stats.step_sizes) == pytest.approx(1)


def test_dopri5_evaluates_once_and_then_six_times_a_step():
    keys = {"first_step": 1.0, "rtol": 1e-6, "atol": 1e-6}
    stats = make("dopri5", **keys).integrate(Wave(), torch.ones(1, 3, dtype=torch.float64), FORWARD).stats
    assert stats.num_rejected > 0
    assert stats.nfe == 1 + 6 * (stats.num_accepted + stats.num_rejected)


def test_options_of_step_control_reach_torchdiffeq():
    def step_sizes(**keys):
        return make("bosh3", **keys).integrate(Wave(), torch.ones(1, 3, dtype=torch.float64), times(0, 1)).stats

    plain = step_sizes()
    assert max(step_sizes(max_step=0.1).step_sizes) <= 0.1 + 1e-12
    bounded = step_sizes(first_step=0.25, min_step=0.25, rtol=1e-12, atol=1e-12)
    assert bounded.step_sizes == pytest.approx([0.25] * 4)
    assert step_sizes(first_step=0.01, ifactor=1.5).step_sizes[:3] == pytest.approx([0.01, 0.015, 0.0225])
    assert step_sizes(safety=0.3).num_accepted > plain.num_accepted
    assert step_sizes(first_step=1.0, dfactor=0.9).num_rejected > step_sizes(first_step=1.0).num_rejected


def test_null_is_torchdiffeqs_own_value_as_the_yaml_says():
    own = {"min_step": 0.0, "max_step": math.inf, "safety": 0.9, "ifactor": 10.0, "dfactor": 0.2}
    y0 = LOGISTIC.y0(FORWARD)
    for method, keys in (("dopri5", own), ("rk4", {"perturb": False}), ("implicit_adams", {"max_iters": 4})):
        nulls = dict.fromkeys(keys)
        found, expected = (make(method, **k).integrate(LOGISTIC.vector_field, y0, FORWARD) for k in (nulls, keys))
        assert found.stats == expected.stats
        assert torch.equal(found.ys, expected.ys)


def test_the_norm_that_is_given_decides_on_the_steps():
    def field(t, y):
        return (torch.zeros_like(y[0]), 30 * torch.cos(30 * t) * torch.ones_like(y[1]))

    y0 = (ONE, torch.zeros(1, dtype=torch.float64))
    all_parts = make("dopri5").integrate(field, y0, times(0, 1)).stats
    first_part = make("dopri5").integrate(field, y0, times(0, 1), norm=lambda state: state[0].abs().max()).stats
    assert first_part.num_accepted < all_parts.num_accepted


# The grid


def step_boundaries(ts, **keys):
    """Where Euler's method evaluates, and the step sizes that it reports."""
    seen = []

    def watched(t, y):
        seen.append(t.item())
        return -y

    return seen, make("euler", **keys).integrate(watched, ONE, ts)


def test_num_steps_are_equal_steps_between_two_output_times():
    seen, solution = step_boundaries(times(0, 1, 3), num_steps=4)
    assert seen == [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5]
    assert solution.stats.step_sizes == [0.25] * 4 + [0.5] * 4
    assert solution.ys.flatten().tolist() == pytest.approx([1, 0.75**4, 0.75**4 * 0.5**4])


@pytest.mark.parametrize(("ts", "expected"), [((0, 1), [0, 0.4, 0.8]), ((1, 0), [1, 0.6, 0.2])])
def test_last_step_is_shorter_when_the_step_size_does_not_divide_the_interval(ts, expected):
    seen, solution = step_boundaries(times(*ts), num_steps=None, step_size=0.4)
    assert seen == pytest.approx(expected)
    assert solution.stats.step_sizes == pytest.approx([0.4, 0.4, 0.2])


def test_step_size_longer_than_the_interval_is_one_step():
    _, solution = step_boundaries(times(0, 0.5), num_steps=None, step_size=2.0)
    assert solution.stats.step_sizes == [0.5]


@pytest.mark.parametrize("step_size", [0.1, 0.3, 1 / 3 / 10])
def test_step_size_that_divides_the_interval_leaves_no_step_of_rounding_size(step_size):
    for ts in (times(0, 2.7), times(2.7, 0)):
        _, solution = step_boundaries(ts, num_steps=None, step_size=step_size)
        assert solution.stats.num_accepted == round(2.7 / step_size)
        assert min(solution.stats.step_sizes) > 0.9 * step_size


def test_both_keys_of_the_grid_give_the_same_rk4():
    ts = times(0, 0.5, 1.5)
    by_number = make("rk4", num_steps=5).integrate(RUNGE.vector_field, RUNGE.y0(ts), times(0, 0.5))
    by_size = make("rk4", num_steps=None, step_size=0.1).integrate(RUNGE.vector_field, RUNGE.y0(ts), ts)
    torch.testing.assert_close(by_size.ys[:2], by_number.ys, rtol=1e-14, atol=0)
    assert (by_number.stats.nfe, by_size.stats.nfe) == (20, 60)
    assert RUNGE.error(by_size, ts) < 1e-5


@pytest.mark.parametrize("method", ["rk4", "explicit_adams"])
def test_perturb_evaluates_just_inside_the_step(method):
    seen = []

    def jump(t, y):
        seen.append(t.item())
        return torch.ones_like(y)

    make(method, num_steps=1, perturb=True).integrate(jump, ONE, times(0, 1))
    assert 0 < seen[0] < 1e-300
    assert 1 - 1e-15 < seen[-1] < 1


# Gradients


@pytest.mark.parametrize("grid", [{"num_steps": 3}, {"num_steps": None, "step_size": 0.25}], ids=["number", "size"])
@pytest.mark.parametrize("method", GRID_METHODS)
def test_direct_on_a_grid_is_the_derivative_of_the_discrete_solution(method, grid):
    solver = make(method, **grid, **(CONVERGED if method == "implicit_adams" else {}))
    field = Wave(width=2)
    parameters = dict(field.named_parameters())
    y0 = torch.tensor([[0.4, -0.2]], dtype=torch.float64, requires_grad=True)

    def solve(y0, ts, *values):
        def functional(t, y):
            return torch.func.functional_call(field, dict(zip(parameters, values, strict=True)), (t, y))

        return make_gradient("direct").solve(solver, functional, y0, ts, FirstSteps()).ys

    ts = times(1, 0.4, 0, requires_grad=True)
    assert torch.autograd.gradcheck(solve, (y0, ts, *parameters.values()), atol=1e-6, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("method", NEEDED)
def test_adjoint_takes_tolerances_and_norm_where_the_method_has_them(method):
    solver = make(method)
    make_gradient("direct").check(solver)
    adjoint, semi = make_gradient("adjoint", rtol=1e-5), make_gradient("adjoint", norm="semi")
    if method in ADAPTIVE_METHODS or method == "implicit_adams":
        adjoint.check(solver)
        changed = solver.with_tolerances(1e-5, None)
        assert (changed.rtol, changed.atol) == (1e-5, solver.atol)
    else:
        with pytest.raises(ValueError, match=r"^adjoint_rtol has no effect on a solver of fixed step size: "):
            adjoint.check(solver)
    if method in ADAPTIVE_METHODS:
        semi.check(solver)
    else:
        with pytest.raises(ValueError, match=r'^norm="semi" .*has no effect on this solver, '):
            semi.check(solver)


# What is refused


GRID = "num_steps or step_size"
UNREAD = "which it does not read"
EXCLUDE = "num_steps and step_size exclude each other, got num_steps=4 step_size=0.1: set exactly one of them"
CHOICE = f"method must be one of {', '.join((*ADAPTIVE_METHODS, *GRID_METHODS))}, got rk4_38"


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        ("rk4", {}, f"needs {GRID}"),
        (
            "rk4",
            {"safety": 0.9, "max_order": 4},
            f"needs {GRID}, and no safety, max_order, {UNREAD}",
        ),
        ("implicit_adams", {"step_size": 0.1}, "needs max_order"),
        ("explicit_adams", {"max_iters": 4}, f"needs {GRID}, and max_order, and no max_iters, {UNREAD}"),
        ("dopri5", {"num_steps": 4, "perturb": False}, f"needs no perturb, num_steps, {UNREAD}"),
    ],
)
def test_refuses_keys_that_do_not_go_with_the_method_all_at_once(method, keys, message):
    assert refusal(method=method, **keys) == f"method={method} {message}"


OPTIONS_READ = {
    **dict.fromkeys(ADAPTIVE_METHODS, ("first_step", "min_step", "max_step", "safety", "ifactor", "dfactor")),
    **dict.fromkeys(GRID_METHODS, ("num_steps", "perturb")),
    "explicit_adams": ("num_steps", "perturb", "max_order"),
    "implicit_adams": ("num_steps", "perturb", "max_order", "max_iters"),
}


@pytest.mark.parametrize("method", NEEDED)
def test_every_option_is_read_or_refused(method):
    values = {"first_step": 0.1, "min_step": 0.0, "max_step": 1.0, "safety": 0.8, "ifactor": 5.0, "dfactor": 0.5}
    values |= {"num_steps": 4, "perturb": True, "max_order": 5, "max_iters": 10}
    for key, value in values.items():
        if key in OPTIONS_READ[method]:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # torchdiffeq warns of what it does not read
                make(method, **{key: value}).integrate(LOGISTIC.vector_field, LOGISTIC.y0(FORWARD), FORWARD)
        else:
            assert f"no {key}, which it does not read" in refusal(**{"method": method, key: value})


@pytest.mark.parametrize(
    ("method", "key", "value", "message"),
    [
        ("rk4_38", "num_steps", 4, CHOICE),
        ("dopri5", "rtol", -1.0, "rtol must be 0 or more, got -1.0"),
        ("dopri5", "rtol", math.nan, "rtol must be 0 or more, got nan"),
        ("dopri5", "atol", -1e-3, "atol must be 0 or more, got -0.001"),
        ("dopri5", "first_step", 0.0, "first_step must be positive, got 0.0"),
        ("dopri5", "min_step", -0.1, "min_step must be 0 or more, got -0.1"),
        ("dopri5", "max_step", 0.0, "max_step must be positive, got 0.0"),
        ("dopri5", "safety", 1.0, "safety must be between 0 and 1, got 1.0"),
        ("dopri5", "ifactor", 1.0, "ifactor must be more than 1, got 1.0"),
        ("dopri5", "dfactor", 1.5, "dfactor must be between 0 and 1, got 1.5"),
        ("dopri5", "max_steps", 0, "max_steps must be positive, got 0"),
        ("dopri5", "max_nfe", -1, "max_nfe must be positive, got -1"),
        ("dopri5", "on_failure", "retry", "on_failure must be one of raise, skip_batch, fallback, got retry"),
        ("dopri5", "fallback_steps", 0, "fallback_steps must be positive, got 0"),
        ("rk4", "num_steps", 0, "num_steps must be positive, got 0"),
        ("explicit_adams", "max_order", 2, "max_order must be between 3 and 11, got 2"),
        ("explicit_adams", "max_order", 12, "max_order must be between 3 and 11, got 12"),
        ("implicit_adams", "max_order", 3, "max_order must be between 4 and 12, got 3"),
        ("implicit_adams", "max_order", 13, "max_order must be between 4 and 12, got 13"),
        ("implicit_adams", "max_iters", 0, "max_iters must be positive, got 0"),
    ],
)
def test_refuses_a_value_out_of_range(method, key, value, message):
    assert refusal(**{"method": method, **NEEDED.get(method, {}), key: value}) == message


def test_refuses_values_that_contradict_each_other():
    assert refusal(method="rk4", step_size=-0.1) == "step_size must be positive, got -0.1"
    assert refusal(method="rk4", num_steps=4, step_size=0.1) == EXCLUDE
    assert refusal(min_step=0.2, max_step=0.1) == "max_step must exceed min_step, got 0.1"


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_refuses_states_and_times_that_no_solve_can_start_from(method):
    def solve(y0, ts):
        make(method).integrate(square, y0, ts)

    with pytest.raises(ValueError, match=r"^y0 must be real, got torch\.complex64: "):
        solve(ONE.to(torch.complex64), times(0, 1))
    with pytest.raises(ValueError, match=r"^y0 must not be empty, got shape "):
        solve(torch.ones(0, 3), times(0, 1))
    with pytest.raises(ValueError, match=r"^ts must be strictly increasing or decreasing, got \[0\.0, 1\.0, 1\.0\]$"):
        solve(ONE, times(0, 1, 1))


# How a solve fails


@pytest.mark.parametrize("method", NEEDED)
def test_bounds_on_evaluations_and_steps_hold_for_every_method(method):
    field = Wave()
    y0 = torch.ones(1, 3, dtype=torch.float64)
    error = failure(method, field, (0.0, 1.0), y0, max_nfe=3)
    assert (error.status, error.nfe, field.calls) == (Status.TOO_MANY_EVALUATIONS, 3, 3)
    assert str(error).startswith(f"the ODE solve failed at t = {error.t:.6g} after 3 evaluations: the evaluations of ")
    error = failure(method, field, (0.0, 1.0), y0, max_steps=1)
    assert error.status is Status.TOO_MANY_STEPS
    assert "the steps reached max_steps. Raise it" in str(error)


def test_an_allowance_that_is_just_enough_is_enough():
    make("rk4", num_steps=4, max_nfe=16, max_steps=4).integrate(square, ONE / 4, times(0, 1))


@pytest.mark.parametrize("end", [2.0, -2.0], ids=["forward", "backward"])
@pytest.mark.parametrize("tuple_state", [False, True], ids=["tensor", "tuple"])
def test_step_underflow_at_a_pole(tuple_state, end):
    def field(t, y):
        return tuple(field(t, part) for part in y) if isinstance(y, tuple) else math.copysign(1, end) * y**2

    error = failure("dopri8", field, (0.0, end), (ONE, ONE) if tuple_state else ONE, rtol=1e-4, atol=1e-4)
    assert error.status is Status.STEP_UNDERFLOW
    assert abs(error.t) == pytest.approx(1, abs=1e-3)
    assert "the step size underflowed: it no longer moves t. The problem is too stiff for this method" in str(error)


@pytest.mark.parametrize("method", NEEDED)
def test_a_vector_field_that_turns_nan(method):
    error = failure(method, lambda t, y: y * torch.where(t > 0.5, torch.nan, 1.0))
    assert error.status in {Status.NON_FINITE, Status.NOT_CONVERGED if method == "implicit_adams" else None}
    assert 0 <= error.t <= 2
    if error.status is Status.NON_FINITE:
        assert "the state is no longer finite. The vector field has grown too large" in str(error)


@pytest.mark.parametrize(
    ("method", "start"), [("euler", 0.75), ("explicit_adams", 0.75), ("midpoint", 0.8), ("rk4", 0.8)]
)
def test_the_last_step_is_looked_at_too(method, start):
    error = failure(method, lambda t, y: y * torch.where(t > start, torch.nan, 1.0), (0.0, 0.9), num_steps=9)
    assert (error.status, error.t) == (Status.NON_FINITE, 0.9)


@pytest.mark.parametrize("filters", ["error", "ignore"])
def test_implicit_steps_that_do_not_converge(filters):
    with warnings.catch_warnings():
        warnings.simplefilter(filters)
        error = failure("implicit_adams", lambda t, y: -1000 * y, (0.0, 1.0), num_steps=10)
    assert error.status is Status.NOT_CONVERGED
    assert error.t == pytest.approx(0.2)
    assert "the fixed-point iteration of the implicit step did not converge. Take smaller steps" in str(error)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_warning_of_the_vector_field_stays_its_own(method):
    def warns(t, y):
        warnings.warn("look here", UserWarning, stacklevel=1)
        return -y

    with pytest.warns(UserWarning, match="look here"):
        make(method).integrate(warns, ONE, times(0, 1))


def test_the_yaml_holds_every_default():
    assert isinstance(make_solver("torchdiffeq"), Torchdiffeq)
    assert make_solver("torchdiffeq", method="rk4", num_steps=4).num_steps == 4
