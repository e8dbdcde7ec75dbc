import json
from functools import partial

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from parts import load
from scipy.integrate import simpson
from scipy.linalg import expm_frechet

from node_cli.audit.closed_form import WRONG_SIGN, solve_case
from node_cli.audit.comparison import difference, errors_alone, what_is_wrong
from node_cli.audit.linear import euler_gradients
from node_cli.audit.linear_problem import product_integral
from node_cli.ode.functional import odeint

pytestmark = pytest.mark.slow


def linear(**keys):
    small = {"num_observations": 3, "euler_steps": [1, 2, 4]}
    return instantiate({**load("problem", "linear").problem, **small, **keys}, _convert_="all")


def exact_states(field, z0, ts):
    return torch.stack([z0 @ torch.matrix_exp(field.matrix * (t - ts[0])).T for t in ts])


@pytest.mark.parametrize("keys", [{}, {"t0": 1.0, "t1": -1.0}, {"num_observations": 1}])
def test_the_closed_forms_are_derivatives_of_the_loss(keys):
    problem = linear(**keys).problem()
    true = problem.closed_form()
    assert difference(true.gradients, problem.gradients(exact_states)).relative_error < 1e-13
    assert difference(problem.finite_differences(exact_states), true.gradients).relative_error < 1e-10


def test_the_integral_is_the_frechet_derivative():
    matrix, direction = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frechet = expm_frechet(matrix.numpy() * 1.5, direction.numpy() * 1.5, compute_expm=False)
    np.testing.assert_allclose(product_integral(matrix, direction, matrix, 1.5), frechet, rtol=1e-13)


def test_the_slip_is_the_integral_of_the_wrong_adjoint():
    problem = linear(num_observations=1).problem()
    slip = problem.closed_form(sign=-1)
    ts = torch.linspace(*problem.ts.tolist(), 201, dtype=torch.float64)
    products = torch.stack([torch.outer(slip.a(t), problem.z(t)) for t in ts.tolist()])
    np.testing.assert_allclose(slip.gradients["dL/dA"], simpson(products, x=ts, axis=0), rtol=1e-6)


@pytest.mark.parametrize("keys", [{}, {"num_observations": 7, "t1": 0.9}])
def test_the_adjoint_jumps_by_the_partial_derivative(keys):
    problem = linear(**keys).problem()
    a = problem.closed_form().a
    for t, jump in zip(problem.ts[1:].tolist(), problem.jumps(), strict=True):
        np.testing.assert_allclose(a(t) - a(t + 1e-9), jump, atol=1e-7)


@pytest.mark.parametrize(
    "words", [("dopri5", "direct checkpoint adjoint", 1e-10), ("torchdiffeq", "direct adjoint", 1e-10)]
)
def test_every_exact_method_is_within_1e_8(cases, words):
    problem = linear(num_observations=2).problem()
    true = problem.closed_form()
    a = true.a(float(problem.ts[1]))
    for case in cases(*words):
        result = solve_case(problem, case, problem.ts[1:2])
        assert max(errors_alone(result.gradients, true.gradients).values()) < 1e-8
        assert (result.adjoints[0] - a).abs().max() < 1e-8


@pytest.mark.parametrize("steps", [1, 5])
def test_the_gradient_of_the_discrete_problem_is_that_of_its_differences(steps):
    audit = linear()
    euler = partial(odeint, method="euler", num_steps=steps, gradient="direct")
    discrete = euler_gradients(audit.problem(), steps)
    assert difference(audit.problem().gradients(euler), discrete).relative_error < 1e-13
    assert difference(audit.problem().finite_differences(euler), discrete).relative_error < 1e-10


def test_the_report(audited):
    report = audited(linear(euler_steps=[8, 16, 32, 64]), "dopri5", "direct adjoint", 1e-4)
    _, errors, jumps, euler = report.tables
    assert [row[""] for row in errors.rows] == [
        "dopri5 direct 0.0001",
        "dopri5 adjoint 0.0001",
        "dopri5 0.0001 finite differences",
        "wrong sign of the adjoint's ODE",
        "all jumps but the last one forgotten",
    ]
    columns = ["", "dL/dA", "dL/dz0", "dL/dt0..t3 (largest)", "a(t)", "z(t)", "evaluations"]
    assert list(errors.rows[0]) == columns
    assert all(errors.rows[0][column] == errors.rows[2][column] for column in columns[1:4])
    assert all(float(row["dL/dA"]) > 0.1 for row in errors.rows[3:])
    assert [row["t_i"] for row in jumps.rows] == ["1", "2", "3"]
    assert jumps.rows[2]["partial (the jump)"] == jumps.rows[2]["total, before t_i"]
    assert jumps.rows[2]["computed, after"] == "(+0.000000, +0.000000)"
    for jump in report.details["jumps"]:
        assert np.subtract(jump["computed_before"], jump["computed_after"]) == pytest.approx(jump["partial"], abs=1e-2)
        assert jump["computed_after"] == pytest.approx(jump["after"], abs=1e-2)
        assert jump["before"] != pytest.approx(jump["after"], abs=0.1)
    assert all(float(row["direct - exact discrete"]) < 1e-12 for row in euler.rows)
    assert float(euler.rows[-1]["adjoint - exact discrete"]) > 1e-3
    assert report.details["euler_orders"] == pytest.approx({"direct": 1.0, "adjoint": 1.0}, abs=0.15)
    assert f"direct {report.details['euler_orders']['direct']:.2f}" in euler.title
    assert "the jump is the partial derivative" in " ".join(report.notes)
    assert json.loads(json.dumps(report.details)) == report.details
    assert list(report.figures) == ["linear", "linear_errors"]


@pytest.mark.parametrize(("solver", "rtol"), [("dopri5", 1e-6), ("torchdiffeq", 1e-3)])
def test_right_methods_are_not_accused(audited, solver, rtol):
    verdict = audited(linear(), f"{solver} rk4", "direct adjoint", rtol).verdict
    adaptive, fixed = verdict.removesuffix(".").split("; ")
    assert adaptive.startswith(f"{solver} direct and {solver} adjoint agree with the closed form (within ")
    assert adaptive.endswith(f" at rtol {rtol:g})")
    assert fixed.startswith("rk4 direct and rk4 adjoint agree with the closed form as far as the fixed steps do")


@pytest.mark.parametrize("solver", ["dopri5", "torchdiffeq", "rk4", "scipy"])
def test_the_verdict_names_what_was_planted(audited, solver):
    gradients = "WrongSign ForgottenParameter DroppedTimes MissingJump OnlyLastJump Negated"
    right, *wrong = audited(linear(), solver, f"adjoint {gradients}", 1e-4).verdict.removesuffix(".").split("; ")
    assert right.startswith(f"{solver} adjoint agrees with the closed form ")
    clauses = [
        WRONG_SIGN,
        "dL/dA gets no gradient",
        "dL/dt0 and dL/dt1 and dL/dt2 and dL/dt3 get no gradient",
        "the jump at t = 2 is missing",
        "the jumps are missing (only the last observation hands anything over)",
        "its sign is wrong throughout",
    ]
    assert wrong == [
        f"{solver} {name} does not: {clause}" for name, clause in zip(gradients.split(), clauses, strict=True)
    ]


def test_a_jump_that_is_missing_from_the_adjoint_alone_has_a_name_too():
    audit = linear()
    true, mistakes = audit.problem().closed_form().gradients, audit.mistakes()
    clause = "the jump at t = 2 is missing"
    forgotten = {**mistakes[clause], "dL/dt2": true["dL/dt2"]}
    assert what_is_wrong(forgotten, true, mistakes) == f"{clause}, though not from dL/dt"
    assert what_is_wrong(mistakes[clause], true, mistakes) == clause


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"matrix": [[1.0]]}, "matrix must be two rows of two numbers, got [[1.0]]"),
        ({"z0": [0.0, 0.0]}, "z0 must be two numbers that are not both 0, got [0.0, 0.0]"),
        ({"t1": 0.0}, "t1 must be another time than t0 (0.0), got 0.0"),
        ({"num_observations": 0}, "num_observations must be at least 1, got 0"),
        (
            {"euler_steps": [4, 4, 8]},
            "euler_steps must be three or more different numbers of at least 1, got [4, 4, 8]",
        ),
        ({"t1": 100.0}, "matrix and observed times t1 - t0 must be within 50, got 210.0"),
        (
            {"observed": [[-0.1, 2.0], [-2.0, -0.1]]},
            "observed must lead to other states than matrix, got [[-0.1, 2.0], [-2.0, -0.1]]",
        ),
    ],
)
def test_refusals(keys, message):
    with pytest.raises(Exception, match="Error in call to target") as refusal:
        linear(**keys)
    assert str(refusal.value.__cause__) == message
