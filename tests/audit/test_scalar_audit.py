import json
import math

import pytest
import torch
from hydra.utils import instantiate
from parts import load

from node_cli.audit.closed_form import WRONG_SIGN, solve_case
from node_cli.audit.comparison import errors_alone

pytestmark = pytest.mark.slow


def scalar(**keys):
    return instantiate({**load("problem", "scalar").problem, **keys}, _convert_="all")


def rows(table):
    return {row[""]: row for row in table.rows}


@pytest.mark.parametrize("keys", [{}, {"alpha": 0.7, "t0": 1.0, "t1": -0.5}])
def test_the_closed_forms_are_derivatives_of_the_loss(keys):
    problem = scalar(**keys)

    def loss(alpha, z0, t0, t1):
        return (z0 * torch.exp(alpha * (t1 - t0)) - 1) ** 2 / 2

    inputs = [torch.tensor(vars(problem)[key], dtype=torch.float64, requires_grad=True) for key in vars(problem)]
    true = torch.autograd.grad(loss(*inputs), inputs)
    found = problem.problem().closed_form().gradients
    assert [found[f"dL/d{key}"].item() for key in vars(problem)] == pytest.approx([g.item() for g in true], rel=1e-14)


def test_the_slip_is_the_integral_of_the_wrong_adjoint():
    problem = scalar().problem()
    true, slip = problem.closed_form(), problem.closed_form(sign=-1)
    ts = torch.linspace(0.0, 1.5, 501, dtype=torch.float64)
    products = torch.stack([slip.a(t) * true.z(t) for t in ts.tolist()])[:, 0]
    assert slip.gradients["dL/dalpha"].item() == pytest.approx(torch.trapezoid(products, ts).item(), rel=1e-5)
    z1 = 2 * math.exp(-1.5)
    assert slip.gradients["dL/dalpha"].item() == pytest.approx((z1 - 1) * 2 * math.sinh(-1.5) / -1, rel=1e-14)
    assert slip.gradients["dL/dt1"] == true.gradients["dL/dt1"]


@pytest.mark.parametrize(
    "words", [("dopri5", "direct checkpoint adjoint", 1e-10), ("torchdiffeq", "direct adjoint", 1e-10)]
)
def test_every_exact_method_is_within_1e_8(cases, words):
    problem = scalar().problem()
    true = problem.closed_form()
    a = torch.stack([true.a(t) for t in (0.0, 0.5, 1.5)])
    for case in cases(*words):
        result = solve_case(problem, case, torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64))
        assert max(errors_alone(result.gradients, true.gradients).values()) < 1e-8
        assert (result.adjoints - a).abs().max() < 1e-9


def test_the_tables_and_the_note(audited):
    report = audited(scalar(), "dopri5 scipy", "direct adjoint", 1e-3, 1e-6)
    values, errors = map(rows, report.tables)
    assert values["closed form"]["dL/dalpha"] == "-0.37066807"
    assert list(errors) == [
        *(f"dopri5 {gradient} {rtol}" for gradient in ("direct", "adjoint") for rtol in ("0.001", "1e-06")),
        *(f"scipy adjoint {rtol}" for rtol in ("0.001", "1e-06")),
        *(f"dopri5 {rtol} finite differences" for rtol in ("0.001", "1e-06")),
        "the classic slip",
    ]
    names = ["dL/dalpha", "dL/dz0", "dL/dt0", "dL/dt1"]
    assert list(errors["the classic slip"]) == ["", *names, "a(t)", "z(t)", "evaluations"]
    assert errors["the classic slip"]["dL/dalpha"] == "5.4e+00"
    assert errors["the classic slip"]["dL/dt1"] == "0.0e+00"
    direct, differences = errors["dopri5 direct 1e-06"], errors["dopri5 1e-06 finite differences"]
    assert [direct[name] for name in names] == [differences[name] for name in names]
    assert float(errors["dopri5 adjoint 1e-06"]["a(t)"]) < 1e-5 < float(errors["dopri5 adjoint 0.001"]["a(t)"])
    assert "(z(t1) - 1) z0 sinh(alpha (t1 - t0)) / alpha = -2.35813 instead of" in report.notes[0]
    assert json.loads(json.dumps(report.details)) == report.details
    assert report.details["cases"][2]["nfe_backward"] > report.details["cases"][0]["nfe_backward"] == 0
    assert list(report.figures) == ["scalar", "scalar_errors"]


@pytest.mark.parametrize("rtols", [(1e-2,), (1e-4, 1e-2), (1e-7,)])
def test_right_methods_are_not_accused(audited, rtols):
    verdict = audited(scalar(), "dopri5 torchdiffeq", "direct adjoint", *rtols).verdict
    methods = "dopri5 direct, dopri5 adjoint, torchdiffeq direct and torchdiffeq adjoint"
    assert verdict.startswith(f"{methods} agree with the closed form (within ")
    assert verdict.endswith(f" at rtol {min(rtols):g}).")


def test_fixed_steps_are_judged_by_what_they_can_do(audited):
    verdict = audited(scalar(), "rk4 euler", "direct adjoint WrongSign", 1e-10).verdict
    right, exact, coarse, *wrong = verdict.split("; ")
    assert right == "rk4 direct and rk4 adjoint agree with the closed form as far as the fixed steps do (within 0.11 %)"
    assert exact == "euler direct is exact for the steps made, which are 36 % off: take more steps"
    assert coarse.startswith("euler adjoint is 24 % off, its steps alone 36 %, too coarse to tell why: take more steps")
    assert wrong == [
        f"rk4 WrongSign does not: {WRONG_SIGN}",
        "euler WrongSign does not: it is 1015 % off, most of all dL/dz0.",
    ]


@pytest.mark.parametrize("solver", ["dopri5", "torchdiffeq", "rk4", "scipy"])
def test_the_verdict_names_what_was_planted(audited, solver):
    gradients = "WrongSign ForgottenParameter DroppedTimes Negated"
    right, *wrong = audited(scalar(), solver, f"adjoint {gradients}", 1e-4).verdict.removesuffix(".").split("; ")
    assert right.startswith(f"{solver} adjoint agrees with the closed form ")
    clauses = [
        WRONG_SIGN,
        "dL/dalpha gets no gradient",
        "dL/dt0 and dL/dt1 get no gradient",
        "its sign is wrong throughout",
    ]
    assert wrong == [
        f"{solver} {name} does not: {clause}" for name, clause in zip(gradients.split(), clauses, strict=True)
    ]


@pytest.mark.parametrize("solver", ["dopri5", "scipy"])
def test_an_error_without_a_name_is_told_by_its_size(audited, solver):
    _, wrong = audited(scalar(), solver, "adjoint OnePercentMore", 1e-6).verdict.split("; ")
    assert wrong.startswith(f"{solver} OnePercentMore does not: it is 1 % off, most of all dL/d")


def test_a_verdict_on_wrong_methods_alone_is_a_sentence_too(audited):
    verdict = audited(scalar(), "dopri5", "WrongSign", 1e-6).verdict
    assert verdict == f"dopri5 WrongSign does not agree with the closed form: {WRONG_SIGN}."


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"alpha": 0.0}, "alpha must be another number than 0, got 0.0"),
        ({"z0": 0.0}, "z0 must be another number than 0, got 0.0"),
        ({"t1": 0.0}, "t1 must be another time than t0 (0.0), got 0.0"),
        (
            {"alpha": 1e-300, "z0": 1.0},
            "z0 must be one for which z(t1) is not 1, where all gradients are 0, got 1.0",
        ),
        ({"alpha": 40.0}, "alpha (t1 - t0) must be within 50 of 0 for float64, got 60.0"),
    ],
)
def test_refusals(keys, message):
    with pytest.raises(Exception, match="Error in call to target") as refusal:
        scalar(**keys)
    assert str(refusal.value.__cause__) == message
