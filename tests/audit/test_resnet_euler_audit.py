import copy
import json
import re

import pytest
import torch
from omegaconf import OmegaConf
from parts import load, make_gradient, make_solver
from torch import nn

from node_cli.audit.base import Case, make_cases
from node_cli.audit.resnet_euler import ResnetEulerAudit
from node_cli.ode.solution import Solution

pytestmark = pytest.mark.slow

SMALL = {"channels": 1, "num_blocks": 3, "batch_size": 1, "seed": 5, "euler_steps": [3, 8, 16, 32, 64]}


class Scaled:
    """The exact gradient times a factor."""

    def __init__(self, factor):
        self.factor = factor

    def check(self, solver):
        pass

    def solve(self, solver, vector_field, y0, ts, first_steps):
        solution = make_gradient("direct").solve(solver, vector_field, y0, ts, first_steps)
        ys = solution.ys.detach() + self.factor * (solution.ys - solution.ys.detach())
        return Solution(ys, solution.stats)


class Forgetful(Scaled):
    """The exact gradient, but of y0 alone."""

    def solve(self, solver, vector_field, y0, ts, first_steps):
        frozen = copy.deepcopy(vector_field).requires_grad_(False)
        return make_gradient("direct").solve(solver, frozen, y0, ts, first_steps)


def audit(cases):
    ticks = []
    problem = ResnetEulerAudit(**SMALL)
    report = problem.audit(cases, ticks.append)
    assert len(ticks) == problem.num_measurements(cases)
    return report


def at(rtols, solver="dopri5", **gradients):
    return make_cases({solver: make_solver(solver)}, gradients, rtols)[0]


@pytest.fixture(scope="module")
def report():
    gradients = {name: make_gradient(name) for name in ("direct", "checkpoint", "adjoint")}
    return audit(at([1e-2, 1e-5], **gradients) + at([1e-3], solver="scipy", adjoint=make_gradient("adjoint")))


@pytest.fixture(scope="module")
def wrong_report():
    gradients = {"flipped": Scaled(-1.0), "half": Scaled(0.5), "forgetful": Forgetful(1.0), "fine": Scaled(1.0)}
    not_for_euler = make_gradient("adjoint", rtol=1e-4)
    wrong_direct = Case("euler", "direct", make_solver("euler"), Scaled(-1.0), None)
    return audit([*at([1e-3, 1e-4], **gradients, adjoint=not_for_euler), wrong_direct])


def test_direct_and_checkpoint_under_euler_are_the_resnet(report):
    same = report.details["under_euler"]
    for name in ("direct", "checkpoint"):
        assert max(same[name]["output"], same[name]["loss"], same[name]["gradient"]["relative_error"]) < 1e-13
    assert "equal to rounding" in report.verdict
    assert [row["equal to the ResNet"] for row in report.tables[0].rows] == ["yes, to rounding"] * 2 + ["no"]


def test_the_adjoint_under_euler_has_the_same_output_and_another_gradient(report):
    adjoint = report.details["under_euler"]["adjoint"]
    assert adjoint["output"] < 1e-13
    assert 0.01 < adjoint["gradient"]["relative_error"] < 1
    assert "Wrong" not in report.verdict


def test_euler_nears_the_ode_with_order_one_and_leaves_the_resnet(report):
    assert report.details["order"]["output"] == pytest.approx(1, abs=0.1)
    assert report.details["order"]["gradient"] == pytest.approx(1, abs=0.3)
    errors = [row["from_ode"]["output"] for row in report.details["euler"]]
    moved = [row["from_resnet"]["output"] for row in report.details["euler"]]
    assert errors == sorted(errors, reverse=True)
    assert moved == sorted(moved)
    assert moved[0] < 1e-13


def test_finer_cases_lie_nearer_to_the_ode_and_as_far_from_the_resnet_as_it(report):
    cases, ode = report.details["cases"], report.details["ode"]
    for gradient in ("direct", "checkpoint", "adjoint"):
        loose, tight = cases[f"dopri5 {gradient} 0.01"], cases[f"dopri5 {gradient} 1e-05"]
        assert tight["from_ode"]["output"] < 1e-3 < loose["from_ode"]["output"]
        assert tight["from_ode"]["gradient"]["relative_error"] < loose["from_ode"]["gradient"]["relative_error"]
        assert tight["from_resnet"]["output"] == pytest.approx(ode["from_resnet"]["output"], rel=1e-2)
    assert cases["dopri5 direct 0.01"]["from_own_steps"]["relative_error"] < 1e-13
    assert cases["dopri5 adjoint 0.01"]["from_own_steps"]["relative_error"] > 1e-3


def test_the_report_has_a_row_for_everything_plain_details_and_three_panels(report):
    assert [len(table.rows) for table in report.tables] == [3, 5, 1 + 7]
    json.dumps(report.details)
    assert len(report.figures["resnet_euler"].axes) == 3


def test_a_solver_outside_autograd_is_held_to_the_ode(report):
    scipy = report.details["cases"]["scipy adjoint 0.001"]
    assert scipy["from_own_steps"] is None
    assert scipy["from_ode"]["gradient"]["relative_error"] < 0.05


def test_a_wrong_gradient_is_named_with_its_mistake(wrong_report):
    wrong = wrong_report.verdict.split("Wrong: ")[1]
    assert "dopri5 flipped (its sign is wrong throughout)" in wrong
    assert re.search(r"dopri5 half \(it is (49|50|51) % off, the exact one of its steps \d\.?\d? %\)", wrong)
    assert "dopri5 forgetful (norm1.weight and " in wrong
    assert wrong.count("flipped") == 1
    assert "fine" not in wrong
    assert "adjoint" not in wrong


def test_a_wrong_direct_is_not_the_resnet(wrong_report):
    sentence = (
        r"^The ODE-Net under Euler is not the ResNet, as it should be: direct .* \(its sign is wrong throughout\)\. "
    )
    assert re.match(sentence, wrong_report.verdict)
    assert "checkpoint differs" not in wrong_report.verdict
    assert wrong_report.tables[0].rows[0]["equal to the ResNet"] == "no: its sign is wrong throughout"


def test_a_gradient_that_euler_refuses_leaves_its_place_to_ours(wrong_report):
    names = ["direct", "checkpoint", "adjoint", "flipped", "half", "forgetful", "fine"]
    assert list(wrong_report.details["under_euler"]) == names


def test_weights_and_samples_follow_from_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (ResnetEulerAudit(**SMALL | {"seed": seed})._resnet() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any()


def test_the_shipped_yaml_has_the_keys():
    node = OmegaConf.to_container(load("problem", "resnet_euler").problem)
    assert node.pop("_target_") == f"{ResnetEulerAudit.__module__}.{ResnetEulerAudit.__name__}"
    assert isinstance(ResnetEulerAudit(**node)._field, nn.Module)


@pytest.mark.parametrize("key", ["channels", "num_blocks", "batch_size"])
def test_sizes_below_one_are_refused(key):
    with pytest.raises(ValueError, match=f"^{key} must be at least 1, got 0$"):
        ResnetEulerAudit(**SMALL | {key: 0})


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match=r"^seed must be at least 0, got -1$"):
        ResnetEulerAudit(**SMALL | {"seed": -1})


@pytest.mark.parametrize("steps", [[], [1, 2], [4, 2, 1], [1, 2, 2], [0, 1, 2]])
def test_steps_without_an_order_are_refused(steps):
    with pytest.raises(ValueError, match=r"^euler_steps must be three or more growing numbers from 1 up, got "):
        ResnetEulerAudit(**SMALL | {"euler_steps": steps})
