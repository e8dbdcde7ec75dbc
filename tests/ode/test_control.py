"""Step-size control: norms, tolerances, the controller by scripted errors, and the choice of the first step."""

import math

import numpy as np
import pytest
import torch

from node_cli.ode.control import (
    SMALLEST_RATIO,
    Controller,
    Tolerance,
    choose_first_step,
    largest,
    largest_per_sample,
    rms,
    rms_per_sample,
)
from node_cli.ode.stepping import Stepper
from node_cli.ode.tableaus import TABLEAUS

RATIOS = torch.tensor([[3.0, -4.0], [0.0, 1.0]], dtype=torch.float64)


def controller(**keys):
    plain = {"safety": 0.9, "ifactor": 10.0, "dfactor": 0.2, "pcoeff": 0.0, "icoeff": 1.0, "dcoeff": 0.0}
    return Controller(4, **{**plain, **keys})


# Norms and tolerances


def test_norms_over_everything_and_over_each_sample():
    assert rms(RATIOS).item() == math.sqrt(26 / 4)
    assert largest(RATIOS).item() == 4
    assert rms_per_sample(RATIOS).tolist() == pytest.approx([math.sqrt(25 / 2), math.sqrt(1 / 2)], rel=1e-15)
    assert largest_per_sample(RATIOS).tolist() == [4, 1]
    assert rms_per_sample(RATIOS[:, :, None, None].expand(2, 2, 3, 5)).tolist() == pytest.approx(
        rms_per_sample(RATIOS).tolist(), rel=1e-15
    )
    assert rms_per_sample(RATIOS[0]).tolist() == [3, 4]


@pytest.mark.parametrize("norm", [rms, largest, rms_per_sample, largest_per_sample])
def test_what_is_no_number_stays_seen(norm):
    assert not norm(RATIOS * torch.tensor([math.nan, 1.0])).isfinite().all()


def test_an_error_is_measured_by_the_greater_state_of_the_step():
    tolerance = Tolerance(0.5, 0.25, largest)
    y0, y1 = torch.tensor([-1.5, 0.5]), torch.tensor([0.5, -3.5])
    assert tolerance.ratio(torch.tensor([2.0, 0.0]), y0, y1).item() == 2 / (0.25 + 0.5 * 1.5)
    assert tolerance.ratio(torch.tensor([0.0, -4.0]), y0, y1).item() == 4 / (0.25 + 0.5 * 3.5)
    assert (y0.tolist(), y1.tolist()) == ([-1.5, 0.5], [0.5, -3.5])


def test_absolute_tolerance_of_each_channel():
    tolerance = Tolerance(0.5, torch.tensor([1.0, 3.0]).view(2, 1), rms_per_sample)
    error, zeros = torch.ones(2, 2, 1), torch.zeros(2, 2, 1)
    assert tolerance.ratio(error, zeros, zeros).tolist() == pytest.approx([math.sqrt((1 + 1 / 9) / 2)] * 2)


# The controller


def test_a_plain_integral_controller():
    plain = controller()
    assert plain.factor(1.0) == 0.9
    assert plain.factor(0.5) == 0.9 * 0.5 ** (-1 / 5)
    assert plain.factor(32.0) == 0.9 * 32 ** (-1 / 5) == 0.45
    assert plain.factor(0.5) == 0.9 * 0.5 ** (-1 / 5)  # nothing of the past


def test_a_factor_stays_between_its_bounds():
    assert controller().factor(1e-9) == 10
    assert controller().factor(0.0) == 10
    assert controller(ifactor=1e9).factor(0.0) == 0.9 * SMALLEST_RATIO ** (-1 / 5)
    assert controller().factor(1e9) == 0.2


@pytest.mark.parametrize("ratio", [math.nan, math.inf])
def test_a_step_that_was_no_good_shrinks_as_far_as_allowed_and_is_forgotten(ratio):
    plain = controller(pcoeff=0.4)
    assert plain.factor(ratio) == 0.2
    assert plain.factor(1.0) == 0.9


def test_a_pid_controller_remembers_the_last_two_accepted_steps():
    p, i, d, k = 0.4, 0.3, 0.1, 5
    pid = controller(pcoeff=p, icoeff=i, dcoeff=d)

    def expected(now, last, before):
        return 0.9 * now ** (-(i + p + d) / k) * last ** ((p + 2 * d) / k) * before ** (-d / k)

    assert pid.factor(0.5) == expected(0.5, 1.0, 1.0)
    assert pid.factor(0.25) == expected(0.25, 0.5, 1.0)
    assert pid.factor(2.0) == expected(2.0, 0.25, 0.5)  # rejected: not remembered
    assert pid.factor(0.8) == expected(0.8, 0.25, 0.5)
    assert pid.factor(0.9) == expected(0.9, 0.8, 0.25)


def test_a_step_that_is_tried_again_is_shorter():
    eager = controller(pcoeff=-0.9)
    eager.factor(1e-4)
    assert 0.9 * 1.1 ** (-0.1 / 5) * (1e-4) ** (-0.9 / 5) > 1
    assert eager.factor(1.1) == 0.9


def test_each_sample_has_a_factor_of_its_own():
    script = [[0.5, 2.0, 0.0], [0.25, 0.5, math.nan], [3.0, 0.1, 1.0]]
    together = controller(pcoeff=0.4, icoeff=0.3, dcoeff=0.1)
    alone = [controller(pcoeff=0.4, icoeff=0.3, dcoeff=0.1) for _ in range(3)]
    for ratios in script:
        expected = [one.factor(ratio) for one, ratio in zip(alone, ratios, strict=True)]
        assert together.factor(np.array(ratios)).tolist() == expected


# The first step


def first_step(field, y0, span, t0=0.0, norm=largest, method="dopri5"):
    """The step that is chosen, and the times of the evaluations."""
    seen = []

    def watched(t, y):
        seen.append(t.item())
        return field(t, y)

    stepper = Stepper(TABLEAUS[method], watched, y0)
    stepper.start(t0, y0)
    return choose_first_step(Tolerance(1e-3, 1e-6, norm), stepper, t0, y0, span).item(), seen


@pytest.mark.parametrize("sign", [1, -1])
def test_the_first_step_is_that_of_the_book(sign):
    y0 = torch.tensor([[2.0]], dtype=torch.float64)
    step, seen = first_step(lambda t, y: sign * 3 * y, y0, sign * 10.0, t0=0.5)
    scale = 1e-6 + 1e-3 * 2
    guess = 0.01 * 2 / 6
    curvature = 3 * 6 / scale  # the slope is linear
    assert step == pytest.approx(min(100 * guess, (0.01 / curvature) ** (1 / 5)), rel=1e-12)
    assert seen == [0.5, pytest.approx(0.5 + sign * guess, rel=1e-12)]


@pytest.mark.parametrize("span", [0.05, -0.05, 0.0])
def test_the_first_step_stays_in_the_interval(span):
    step, seen = first_step(lambda t, y: 0 * y + 1e-3, torch.ones(1, 2).double(), span, t0=1.0)
    assert step == abs(span)
    assert min(1, 1 + span) <= seen[1] <= max(1, 1 + span)


def test_without_slope_or_state_the_first_guess_is_careful():
    assert first_step(lambda t, y: torch.zeros_like(y), torch.ones(1, 2), 10.0)[0] == np.float32(1e-6)
    step, seen = first_step(lambda t, y: torch.ones_like(y), torch.zeros(1, 2), 10.0)
    assert seen[1] == np.float32(1e-6)
    assert step == pytest.approx(1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_where_the_probe_or_the_start_is_no_number_the_first_step_is_one(value):
    y0 = torch.ones(1, 2)
    assert first_step(lambda t, y: y * torch.where(t > 0, value, 1.0), y0, 10.0)[0] == np.float32(1e-6)
    assert first_step(lambda t, y: y * value, y0, 10.0)[0] == np.float32(1e-6)
    assert first_step(lambda t, y: y * value, y0, 1e-9)[0] == np.float32(1e-9)


def test_each_sample_has_a_first_step_of_its_own():
    rates = torch.tensor([[1.0], [100.0], [0.0]], dtype=torch.float64)
    stepper = Stepper(TABLEAUS["bosh3"], lambda t, y: -rates * y, rates)
    y0, t0 = torch.ones(3, 1, dtype=torch.float64), np.zeros(3)
    stepper.start(t0, y0)
    together = choose_first_step(Tolerance(1e-3, 1e-6, rms_per_sample), stepper, t0, y0, 10.0).tolist()
    alone = [first_step(lambda t, y, rate=rate: -rate * y, y0[:1], 10.0, norm=rms, method="bosh3")[0] for rate in rates]
    assert together == pytest.approx(alone, rel=1e-14)
    assert together[1] < together[0] / 10
