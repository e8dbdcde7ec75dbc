"""The adjoint is a second solve: it comes as near as its tolerance allows, and costs what it says."""

import math

import pytest
import torch
from gradient_checks import (
    BACKWARD,
    FORWARD,
    adaptive,
    assert_close,
    exact_grads,
    fixed,
    loss_of,
    run,
    solve,
    start,
    tight,
)
from parts import make_gradient, make_solver
from problems import Growth, Wave, times
from torchdiffeq import odeint_adjoint

from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.tableaus import ADAPTIVE_METHODS

pytestmark = pytest.mark.slow

NORMS = pytest.mark.parametrize("norm", ["full", "semi"])


def worst_difference(found, expected):
    return max(((found[name] - grad).norm() / grad.norm()).item() for name, grad in expected.items())


@pytest.mark.parametrize("ts", [FORWARD, BACKWARD], ids=["forward", "backward"])
@NORMS
@pytest.mark.parametrize("method", ["dopri5", "tsit5", "dopri8"])
def test_at_tight_tolerance_it_agrees_with_direct(method, norm, ts):
    found = run("adjoint", tight(method, 1e-10), ts, norm=norm).grads
    assert_close(found, exact_grads(ts), rtol=1e-8)


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
@pytest.mark.parametrize("outputs", ["interpolate", "step"])
def test_it_takes_the_outputs_of_any_forward_solve(outputs, batching):
    solver = adaptive("dopri5", rtol=1e-10, atol=1e-10, outputs=outputs, batching=batching, first_step=5.0)
    found = run("adjoint", solver)
    assert found.solution.stats.num_rejected > 0
    assert_close(found.grads, exact_grads(), rtol=1e-8)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("rk4", {"num_steps": 60}),
        ("scipy", {"method": "DOP853", "rtol": 1e-11, "atol": 1e-11}),
        ("torchdiffeq", {"rtol": 1e-10, "atol": 1e-10}),
    ],
)
def test_it_goes_with_every_kind_of_solver(name, keys):
    assert_close(run("adjoint", make_solver(name, **keys)).grads, exact_grads(), rtol=1e-6)


@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_its_error_falls_with_the_tolerance(method):
    exact = exact_grads()
    tolerances = (1e-1, 1e-2, 1e-3) if method in ("midpoint", "heun", "ralston") else (1e-2, 1e-4, 1e-6)
    errors = [
        worst_difference(run("adjoint", adaptive(method, rtol=tolerance, atol=tolerance)).grads, exact)
        for tolerance in tolerances
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


def test_the_backward_solve_has_its_own_tolerances():
    exact = exact_grads()
    loose = run("adjoint", tight(), rtol=1e-3, atol=1e-3)
    fine = run("adjoint", tight("dopri5", 1e-9), rtol=1e-11, atol=1e-11)
    assert 1e-7 < worst_difference(loose.grads, exact) < 1e-2
    assert worst_difference(fine.grads, exact) < 1e-7


@pytest.mark.parametrize("index", [1, 2])
def test_each_output_hands_over_its_gradient_at_its_time(index):
    def grads(ts):
        field, y0 = Wave(), start()
        ys = solve("adjoint", tight(), field, y0, times(*ts)).ys
        return torch.autograd.grad(ys[index].sum(), (y0, *field.parameters()))

    for one, other in zip(grads(FORWARD), grads(FORWARD[: index + 1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_the_first_output_is_the_start_itself():
    field, y0 = Wave(), start()
    solve("adjoint", tight(), field, y0, times(*FORWARD)).ys[0].sum().backward()
    assert torch.equal(y0.grad, torch.ones_like(y0))
    assert not field.hidden.weight.grad.any()


@NORMS
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_its_gradients_are_near_those_of_torchdiffeqs_adjoint(norm, tolerance):
    """Both solve the same augmented problem, each in its own steps."""
    ts = times(0, 1)

    def grads(ys_of):
        field, y0 = Wave(), start()
        return torch.autograd.grad(loss_of(ys_of(field, y0)), (y0, *field.parameters()))

    solver = adaptive("dopri5", rtol=tolerance, atol=tolerance)
    keys = {"rtol": tolerance, "atol": tolerance, "method": "dopri5"}
    options = {"norm": "seminorm"} if norm == "semi" else {}
    found = grads(lambda field, y0: solve("adjoint", solver, field, y0, ts, norm=norm).ys)
    theirs = grads(lambda field, y0: odeint_adjoint(field, y0, ts, **keys, adjoint_options=options))
    for one, other in zip(found, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=20 * tolerance, atol=20 * tolerance)


def test_semi_norm_needs_fewer_backward_evaluations_than_full():
    evaluations = {}
    for norm in ("full", "semi"):
        field = Wave()
        with torch.no_grad():
            field.hidden.weight.mul_(3)
        y0 = torch.full((16, 3), 2.0, dtype=torch.float64)
        solution = solve("adjoint", adaptive(rtol=1e-6, atol=1e-9), field, y0, times(0, 3), norm=norm)
        (100 * solution.ys[-1] ** 2).sum().backward()
        evaluations[norm] = solution.backward_stats.nfe
    assert evaluations["semi"] < evaluations["full"]


@NORMS
def test_both_norms_see_the_error_of_the_adjoint(norm):
    """The state stays at zero, however long a step is; only its derivative for the start moves."""
    y0 = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    solver = adaptive(rtol=1e-8, atol=1e-8)
    solve("adjoint", solver, lambda t, y: 5 * torch.cos(5 * t) * y, y0, times(0, 1), norm=norm).ys[-1].sum().backward()
    torch.testing.assert_close(y0.grad, torch.full_like(y0, math.exp(math.sin(5))), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("method", "stages"), [("euler", 1), ("rk4", 4), ("dopri5", 6)])
def test_backward_statistics_are_those_of_the_backward_solve(method, stages):
    field = Wave()
    y0, ts = start(), times(*FORWARD, requires_grad=True)
    solution = solve("adjoint", fixed(method, num_steps=2), field, y0, ts)
    assert (solution.backward_stats.nfe, solution.backward_stats.step_sizes) == (0, [])
    calls = field.calls
    solution.ys.sum().backward()
    stats = solution.backward_stats
    shared = 1 if method == "dopri5" else 0  # each interval is a solve, whose first stage no step before has
    assert (
        stats.nfe == 3 * (2 * stages + shared) + len(ts) + 1
    )  # one for each time, and one to see the field is the same
    assert stats.nfe == field.calls - calls
    assert (stats.num_accepted, stats.num_rejected) == (6, 0)
    assert stats.step_sizes == pytest.approx([0.3, 0.3, 0.15, 0.15, 0.3, 0.3])


def test_times_that_need_no_gradient_cost_no_evaluation():
    solution = solve("adjoint", fixed("rk4", num_steps=2), Wave(), start(), times(*FORWARD))
    solution.ys.sum().backward()
    assert solution.backward_stats.nfe == 3 * 2 * 4 + 1


def test_on_a_grid_of_few_steps_it_is_not_the_gradient_of_what_was_computed():
    solver = fixed(num_steps=2)
    assert worst_difference(run("adjoint", solver).grads, run("direct", solver).grads) > 1e-5


def test_a_scalar_parameter_is_no_hindrance():
    field, y0 = Growth(0.8), times(0.5, requires_grad=True)
    field.loss(solve("adjoint", tight(), field, y0, times(0, 1)).ys[-1]).backward()
    assert field.alpha.grad.item() == pytest.approx(field.gradients(0.5, 0.0, 1.0)["alpha"], rel=1e-8)


NO_EFFECT = 'adjoint_{} has no effect on a solver of fixed step size: leave it unset, or take method="dopri5"'
NO_NORM = (
    'norm="semi" ("seminorm" in adjoint_options) has no effect on this solver, which has an error norm of its own or '
    'none: take norm="full", or method="dopri5"'
)
PER_CHANNEL = (
    "adjoint_atol must be a number where atol has one for each channel: the state of the backward solve has no channels"
)


@pytest.mark.parametrize(
    ("solver", "keys", "message"),
    [
        (fixed(num_steps=2), {"rtol": 1e-3, "atol": 1e-3}, NO_EFFECT.format("rtol")),
        (fixed("dopri5", step_size=0.1), {"atol": 1e-3}, NO_EFFECT.format("atol")),
        (fixed(num_steps=2), {"norm": "semi"}, NO_NORM),
        (make_solver("scipy"), {"norm": "semi"}, NO_NORM),
        (make_solver("scipy"), {"rtol": 1e-15}, "rtol must be at least 1e-13 for scipy, got 1e-15"),
        (adaptive(atol=[1e-3, 1e-4, 1e-5]), {}, PER_CHANNEL),
    ],
)
def test_it_refuses_what_the_solver_would_ignore_or_cannot_take(solver, keys, message):
    with pytest.raises(ValueError) as error:
        make_gradient("adjoint", **keys).check(solver)
    assert str(error.value) == message


def test_it_takes_tolerances_for_each_channel_with_a_number_of_its_own():
    exact = exact_grads()
    assert_close(run("adjoint", adaptive(rtol=1e-9, atol=[1e-9] * 3), atol=1e-9).grads, exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rtol": 0.0}, "rtol must be positive, or unset to take the solver's, got 0.0"),
        ({"atol": -1.0}, "atol must be positive, or unset to take the solver's, got -1.0"),
        ({"rtol": math.nan}, "rtol must be positive, or unset to take the solver's, got nan"),
        ({"norm": "max"}, "norm must be one of full, semi, got max"),
    ],
)
def test_it_refuses_values_out_of_range(keys, message):
    with pytest.raises(ValueError) as error:
        Adjoint(**{"rtol": None, "atol": None, "norm": "full", **keys})
    assert str(error.value) == message
