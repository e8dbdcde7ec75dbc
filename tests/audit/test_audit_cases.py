"""Which solvers, gradients and tolerances make the cases of an audit, and what is left out or refused."""

import pytest
from parts import make_gradient, make_solver

from node_cli.audit.base import make_cases

RTOLS = [1e-2, 1e-4]
CHECKPOINT = (
    "gradient=checkpoint runs steps again, and a solve by Torchdiffeq does not record any: "
    "take solver=dopri5 or gradient=adjoint"
)
SCIPY = "gradient=direct cannot differentiate a solve by Scipy, which runs outside autograd: take gradient=adjoint"
NO_EFFECT = "gradient.rtol has no effect on a solver of fixed step size: leave it unset, or take solver=dopri5"


def cases_of(solvers, gradients, rtols=RTOLS):
    made = {name: make_solver(name) for name in solvers.split()}
    return make_cases(made, {name: make_gradient(name) for name in gradients.split()}, rtols)


def test_every_solver_with_every_gradient_at_every_tolerance_in_this_order():
    cases, left_out = cases_of("dopri5 bosh3", "adjoint direct", [1e-2, 1e-4, 1e-3])
    assert [case.name for case in cases] == [
        f"{solver} {gradient} {rtol}"
        for solver in ("dopri5", "bosh3")
        for gradient in ("adjoint", "direct")
        for rtol in ("0.01", "0.0001", "0.001")
    ]
    for case in cases:
        assert case.solver == make_solver(case.solver_name, rtol=case.rtol, atol=case.solver.atol)
        assert case.gradient == make_gradient(case.gradient_name)
    assert left_out == []


@pytest.mark.parametrize(
    ("solver", "gradient", "atol", "loose", "tight"),
    [
        ("dopri5", "direct", 1e-6, 1e-5, 1e-7),
        ("torchdiffeq", "direct", 1e-6, 1e-5, 1e-7),
        ("scipy", "adjoint", 0.5, 5.0, 0.05),
        ("dopri5", "direct", [1e-6, 1e-3], [1e-5, 1e-2], [1e-7, 1e-4]),
    ],
)
def test_atol_keeps_its_proportion_to_rtol(solver, gradient, atol, loose, tight):
    given = make_solver(solver, rtol=1e-3, atol=atol)
    cases, _ = make_cases({solver: given}, {gradient: make_gradient(gradient)}, RTOLS)
    assert [case.solver.rtol for case in cases] == RTOLS
    assert [case.solver.atol for case in cases] == [pytest.approx(loose), pytest.approx(tight)]
    assert (given.rtol, given.atol) == (1e-3, atol)


def test_fixed_steps_stand_once_without_a_tolerance():
    cases, _ = cases_of("rk4 dopri5", "direct checkpoint")
    assert [(case.name, case.rtol) for case in cases[:2]] == [("rk4 direct", None), ("rk4 checkpoint", None)]
    assert cases[0].solver == make_solver("rk4")
    assert [case.rtol for case in cases[2:]] == [*RTOLS, *RTOLS]


def test_a_pair_that_does_not_go_together_is_left_out_with_a_line():
    cases, left_out = cases_of("torchdiffeq scipy dopri5", "checkpoint adjoint", [1e-2])
    assert [case.method for case in cases] == [
        "torchdiffeq adjoint",
        "scipy adjoint",
        "dopri5 checkpoint",
        "dopri5 adjoint",
    ]
    assert left_out == [
        f"left out: torchdiffeq checkpoint: {CHECKPOINT}",
        f"left out: scipy checkpoint: {CHECKPOINT.replace('Torchdiffeq', 'Scipy')}",
    ]


@pytest.mark.parametrize(
    ("solvers", "gradients", "message"),
    [
        ("torchdiffeq", "direct checkpoint", CHECKPOINT),  # a gradient with none of the solvers
        ("dopri5 scipy", "direct", SCIPY),  # a solver with none of the gradients
    ],
)
def test_what_goes_with_nothing_is_refused(solvers, gradients, message):
    with pytest.raises(ValueError, match="gradient=") as refusal:
        cases_of(solvers, gradients)
    assert str(refusal.value) == message


def test_options_that_a_gradient_would_ignore_are_refused_unless_another_solver_takes_them():
    gradients = {"direct": make_gradient("direct"), "adjoint": make_gradient("adjoint", rtol=1e-5)}
    both = {name: make_solver(name) for name in ("dopri5", "rk4")}
    cases, left_out = make_cases(both, gradients, [1e-2])
    assert [case.method for case in cases] == ["dopri5 direct", "dopri5 adjoint", "rk4 direct"]
    assert left_out == [f"left out: rk4 adjoint: {NO_EFFECT}"]
    with pytest.raises(ValueError, match="no effect") as refusal:
        make_cases({"rk4": both["rk4"]}, gradients, [1e-2])
    assert str(refusal.value) == NO_EFFECT
