"""Direct and adjoint gradients against finite differences, closed forms, each other and torchdiffeq."""

import math

import pytest
import torch
from parts import ADAPTIVE, FIXED, make_gradient, make_solver, names
from problems import Growth, Wave, times
from torchdiffeq import odeint_adjoint

from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.gradients.direct import Direct

REFUSED_NORM = (
    "gradient.norm=semi has no effect on this solver, which has an error norm of its own or none: "
    "take gradient.norm=full, or solver=dopri5"
)
ADAMS = ["explicit_adams", "implicit_adams"]
GRIDS = {"num_steps": {"num_steps": 3}, "step_size": {"num_steps": None, "step_size": 0.25}}


def tight(name):
    """A solver whose own error is far below 1e-6."""
    if name in ("dopri5", "dopri8"):
        return make_solver(name, rtol=1e-9, atol=1e-9)
    return make_solver(
        name, **{"scipy": {"method": "DOP853", "rtol": 1e-11, "atol": 1e-11}, "rk4": {"num_steps": 100}}[name]
    )


def gradients(solver, gradient, ts=(0.0, 0.4, 1.0), learn_times=True, weights=(0.3, -0.7, 1.0)):
    """Every gradient of a loss that hears of all output times."""
    field = Wave()
    y0 = torch.tensor([[0.4, -0.2, 0.8], [1.0, 0.1, -0.5]], dtype=torch.float64, requires_grad=True)
    ts = times(*ts, requires_grad=learn_times)
    solution = gradient.solve(solver, field, y0, ts)
    loss = sum(weight * (y**2 + y.sin()).sum() for weight, y in zip(weights, solution.ys, strict=False))
    loss.backward()
    inputs = {"y0": y0, **({"ts": ts} if learn_times else {}), **dict(field.named_parameters())}
    return {name: tensor.grad for name, tensor in inputs.items()}


def assert_close(found, expected, rtol):
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        difference = (found[name] - grad).norm() / grad.norm()
        assert difference < rtol, f"{name}: {difference:.2g}"


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", [*FIXED, *ADAMS])
def test_direct_on_a_grid_is_the_derivative_of_the_discrete_solution(name, grid):
    keys = {"rtol": 1e-12, "atol": 1e-12, "max_iters": 50} if name == "implicit_adams" else {}
    check_against_finite_differences(make_solver(name, **grid, **keys))


@pytest.mark.parametrize("name", ["dopri5", "dopri8"])
def test_direct_with_steps_chosen_by_the_tolerance_is_the_derivative_to_the_tolerance(name):
    check_against_finite_differences(tight(name))


def check_against_finite_differences(solver):
    field = Wave(width=2)
    y0 = torch.tensor([[0.4, -0.2]], dtype=torch.float64, requires_grad=True)
    parameters = dict(field.named_parameters())

    def solve(y0, ts, *values):
        def functional(t, y):
            return torch.func.functional_call(field, dict(zip(parameters, values, strict=True)), (t, y))

        return Direct().solve(solver, functional, y0, ts).ys

    for ts in (times(0, 0.4, 1, requires_grad=True), times(1, 0.4, 0, requires_grad=True)):
        assert torch.autograd.gradcheck(solve, (y0, ts, *parameters.values()), atol=1e-6, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("ts", [(0.0, 0.4, 1.0), (1.0, 0.4, 0.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("norm", ["full", "semi"])
@pytest.mark.parametrize("name", ["dopri5", "dopri8"])
def test_direct_and_adjoint_agree_at_tight_tolerance(name, norm, ts):
    solver = tight(name)
    found = gradients(solver, make_gradient("adjoint", norm=norm), ts)
    assert_close(found, gradients(solver, make_gradient("direct"), ts), rtol=1e-6)


@pytest.mark.parametrize("name", ["rk4", "scipy"])
def test_adjoint_with_other_solvers_agrees_with_direct_of_dopri8(name):
    assert_close(gradients(tight(name), make_gradient("adjoint")), gradients(tight("dopri8"), Direct()), rtol=1e-6)


def test_the_backward_solve_has_its_own_tolerances():
    solver, exact = tight("dopri5"), gradients(tight("dopri8"), Direct())
    loose = gradients(solver, make_gradient("adjoint", rtol=1e-3, atol=1e-3))
    difference = (loose["hidden.weight"] - exact["hidden.weight"]).norm() / exact["hidden.weight"].norm()
    assert 1e-7 < difference < 1e-2


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (0.5, -1.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
@pytest.mark.parametrize("name", ["dopri5", "dopri8", "rk4"])
def test_gradients_of_exponential_growth_have_their_closed_form(name, gradient, t0, t1):
    field, z0 = Growth(0.8), times(0.5, requires_grad=True)
    ts = times(t0, t1, requires_grad=True)
    z1 = make_gradient(gradient).solve(tight(name), field, z0, ts).ys[-1]
    field.loss(z1).backward()
    found = {"alpha": field.alpha.grad, "z0": z0.grad[0], "t0": ts.grad[0], "t1": ts.grad[1]}
    assert {key: value.item() for key, value in found.items()} == pytest.approx(field.gradients(0.5, t0, t1), rel=1e-7)


@pytest.mark.parametrize("norm", ["full", "semi"])
@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_adjoint_is_that_of_torchdiffeq(norm, rtol):
    def without_time(state):  # theirs also controls the error of dL/dt, asked for or not
        parts = state[1:] if norm == "full" else state[1:3]
        return max(part.pow(2).mean().sqrt() for part in parts)

    field = Wave()
    torch.manual_seed(1)
    start, weights = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    ts = times(0, 1)

    def both(solve):
        y0 = start.clone().requires_grad_()
        inputs = (y0, *field.parameters())
        return torch.autograd.grad((solve(y0) * weights).sum(), inputs)

    ours = both(
        lambda y0: (
            make_gradient("adjoint", norm=norm).solve(make_solver("dopri5", rtol=rtol, atol=rtol), field, y0, ts).ys[-1]
        )
    )
    theirs = both(
        lambda y0: odeint_adjoint(
            field,
            y0,
            ts,
            rtol=rtol,
            atol=rtol,
            method="dopri5",
            options={"step_t": ts[1:]},
            adjoint_options={"step_t": ts[:1], "norm": without_time},
        )[-1]
    )
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_semi_norm_needs_fewer_backward_evaluations_than_full():
    field = Wave()
    with torch.no_grad():
        field.hidden.weight.mul_(3)
    evaluations = {}
    for norm in ("full", "semi"):
        y0 = torch.full((16, 3), 2.0, dtype=torch.float64)
        solver = make_solver("dopri5", rtol=1e-6, atol=1e-9)
        solution = make_gradient("adjoint", norm=norm).solve(solver, field, y0, times(0, 3))
        (100 * solution.ys[-1] ** 2).sum().backward()
        evaluations[norm] = solution.backward_stats.nfe
    assert evaluations["semi"] < evaluations["full"]


def test_parameters_that_need_no_gradient_get_none():
    field = Wave()
    field.hidden.weight.requires_grad_(False)
    y0 = torch.ones(2, 3, dtype=torch.float64)
    make_gradient("adjoint").solve(make_solver("dopri5"), field, y0, times(0, 1)).ys[-1].sum().backward()
    assert field.hidden.weight.grad is None
    assert field.out.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_gradient_is_finite_where_state_and_slope_are_zero(name, gradient):
    field = Wave()
    for parameter in field.out.parameters():
        torch.nn.init.zeros_(parameter)
    y0 = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    make_gradient(gradient).solve(make_solver(name), field, y0, times(0, 1)).ys[-1].sum().backward()
    torch.testing.assert_close(y0.grad, torch.ones_like(y0))
    assert all(parameter.grad.isfinite().all() for parameter in field.parameters())


@pytest.mark.parametrize("gradient", names("gradient"))
@pytest.mark.parametrize("name", names("solver"))
def test_every_solver_with_every_gradient_is_close_or_refused(name, gradient):
    solver, gradient = make_solver(name), make_gradient(gradient)
    if name == "scipy" and isinstance(gradient, Direct):
        with pytest.raises(ValueError, match=r"^gradient=direct cannot look through solver=scipy, which "):
            gradient.check(solver)
        return
    gradient.check(solver)
    found = gradients(solver, gradient, learn_times=False)
    expected = gradients(tight("dopri8"), Direct(), learn_times=False)
    assert_close(found, expected, rtol={"euler": 0.3, "fehlberg2": 0.1}.get(name, 0.05))


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        *(
            (
                name,
                keys,
                f"gradient.{key} has no effect on a solver of fixed step size: set it to null, or take solver=dopri5",
            )
            for name in (*FIXED, "explicit_adams")
            for key, keys in (("rtol", {"rtol": 1e-3, "atol": 1e-3}), ("atol", {"atol": 1e-3}))
        ),
        *(
            (
                name,
                {"norm": "semi"},
                REFUSED_NORM,
            )
            for name in ("rk4", "explicit_adams", "implicit_adams", "scipy")
        ),
        ("scipy", {"rtol": 1e-15}, "rtol must be at least 1e-13 for scipy, got 1e-15"),
    ],
)
def test_adjoint_refuses_what_the_solver_would_ignore(name, keys, message):
    with pytest.raises(ValueError) as error:
        make_gradient("adjoint", **keys).check(make_solver(name))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rtol": 0.0}, "rtol must be positive or null (the solver's), got 0.0"),
        ({"atol": -1.0}, "atol must be positive or null (the solver's), got -1.0"),
        ({"rtol": math.nan}, "rtol must be positive or null (the solver's), got nan"),
        ({"norm": "max"}, "norm must be one of full, semi, got max"),
    ],
)
def test_adjoint_refuses_values_out_of_range(keys, message):
    with pytest.raises(ValueError) as error:
        Adjoint(**{"rtol": None, "atol": None, "norm": "full", **keys})
    assert str(error.value) == message


@pytest.mark.parametrize("name", [*ADAPTIVE, *ADAMS, "scipy"])
def test_adjoint_tolerances_reach_every_solver_that_has_some(name):
    solver = make_solver(name)
    if not solver.has_tolerances:
        assert name == "explicit_adams"
        return
    make_gradient("adjoint", rtol=1e-5).check(solver)
    changed = solver.with_tolerances(1e-5, None)
    assert (changed.rtol, changed.atol) == (1e-5, solver.atol)
    assert solver.with_tolerances(None, None) == solver
