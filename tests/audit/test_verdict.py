"""The sentences on a model's cases, from rows made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from parts import make_gradient, make_solver

from node_cli.audit.backward_pass import Cost, Pass
from node_cli.audit.base import Case
from node_cli.audit.model_rows import ModelRow
from node_cli.audit.verdict import Verdict

TRUE = torch.tensor([3.0, 4.0], dtype=torch.float64)  # of norm 5


def passing(error=0.0, time=1.0) -> Pass:
    """A pass whose gradient is `error` away, relative."""
    gradient = TRUE + error * 5 * torch.tensor([0.8, -0.6], dtype=torch.float64)
    return Pass(1.0, {"blocks.0.weight": gradient}, {"blocks.0.t1": torch.tensor(time, dtype=torch.float64)})


def row(
    gradient, rtol, *, off_pass=0.0, off_ode=0.05, nfe=(26, 0), seconds=1.0, solver="dopri5", **changes
) -> ModelRow:
    case = Case(solver, gradient, make_solver(solver), make_gradient(gradient), rtol)
    own = {
        "made": passing(off_ode),
        "exact": passing(off_ode - off_pass),
        "cost": Cost(*nfe, seconds, 3 * 2**20),
        **changes,
    }
    return ModelRow(case, ["blocks.0"], passing(), **own)


def sentence(*rows, accepted_error=0.1):
    return Verdict(rows, accepted_error).sentences()


CASES = {
    "direct 0.01": {"off_ode": 0.3, "nfe": (20, 0)},
    "direct 0.001": {},
    "direct 1e-05": {"off_ode": 0.01, "nfe": (80, 0)},
    "checkpoint 0.001": {"nfe": (26, 24)},
    "adjoint 0.01": {"off_ode": 0.4, "off_pass": 0.4, "nfe": (20, 2)},
    "adjoint 0.001": {"off_ode": 0.2, "off_pass": 0.2, "nfe": (20, 1)},
    "adjoint 1e-05": {"off_ode": 0.03, "off_pass": 0.03, "nfe": (20, 3)},
}


@pytest.mark.parametrize("seconds", [[1, 1, 1, 1, 1, 1, 1], [9, 8, 7, 0.01, 5, 4, 3], [1, 9, 0.01, 9, 9, 9, 9]])
def test_the_fewest_evaluations_of_those_that_are_exact_and_near_are_to_be_used(seconds):
    """However long they took: another process may have been at work."""
    rows = [row(*name.split(), **case, seconds=time) for (name, case), time in zip(CASES.items(), seconds, strict=True)]
    rows = [replace(each, case=replace(each.case, rtol=float(each.case.rtol))) for each in rows]
    text = sentence(*rows)
    assert text == (
        "Use dopri5 direct 0.001: the gradient of the loss computed, 5 % off that of the ODE, for 26 evaluations a "
        "pass. dopri5 checkpoint 0.001 is exact too, for 50. "
        "dopri5 adjoint is not exact: off by 40 % at 0.01 to 3 % at 1e-05, the error of its second solve (tighten "
        "gradient.rtol and gradient.atol)."
    )
    assert max(len(each.split()) for each in text.split(". ")) <= 30


def test_where_none_is_near_the_nearest_exact_one_is_named():
    text = sentence(row("direct", 1e-2, off_ode=0.4), row("adjoint", 1e-2, off_ode=0.2, off_pass=0.2))
    assert text.startswith("None is within 10 % of the ODE's gradient, dopri5 direct 0.01 is nearest: the gradient of")
    text = sentence(row("adjoint", 1e-2, off_ode=0.2, off_pass=0.2))
    assert (
        "dopri5 adjoint 0.01 is nearest: not the gradient of the loss computed (off by 20 % at 0.01, the error of"
        in text
    )


def test_what_rounding_does_alone_is_no_fault():
    assert "is exact too" in sentence(row("direct", 1e-3), row("checkpoint", 1e-3, off_pass=0.3, rounding=0.2))
    assert "is not exact" in sentence(row("direct", 1e-3), row("checkpoint", 1e-3, off_pass=0.3, rounding=0.1))


def test_a_known_mistake_is_named_and_never_recommended():
    lost = {"made": passing(0.05, time=0.0), "seconds": 0.01}
    text = sentence(row("direct", 1e-3), row("checkpoint", 1e-3, **lost))
    assert text.startswith("Use dopri5 direct")
    assert text.endswith("dopri5 checkpoint is not exact: blocks.0.t1 gets no gradient.")


def test_without_an_exact_gradient_to_compare_with():
    text = sentence(row("direct", 1e-3), row("adjoint", 1e-3, solver="scipy", exact=None))
    assert text.endswith("scipy adjoint is 5 % at 0.001 off the gradient of the ODE.")
    assert "no exact gradient of its pass to compare with, 5 %" in sentence(row("adjoint", 1e-3, exact=None))


def test_fixed_steps_have_no_tolerance_to_tighten():
    rows = row("direct", None, solver="rk4"), row("adjoint", None, solver="rk4", off_pass=0.2, off_ode=0.2)
    text = sentence(*rows)
    assert text.endswith("rk4 adjoint is not exact: off by 20 %, the error of its second solve (take more steps).")


def test_solves_that_fail():
    gone = {"made": None, "exact": None, "cost": None, "failure": "the ODE solve failed at t = 0"}
    assert sentence(row("direct", 1e-3, **gone)) == (
        "No case could be solved; the first: the ODE solve failed at t = 0"
    )
    text = sentence(row("direct", 1e-3), row("direct", 1e-5, **gone), row("adjoint", 1e-3, **gone))
    assert "a pass; at 1e-05 its solve fails. " in text
    assert text.endswith("dopri5 adjoint cannot be solved (the ODE solve failed at t = 0).")
