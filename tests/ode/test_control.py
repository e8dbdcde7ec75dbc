"""Step-size control: norms, tolerances, the controller by scripted errors, and the choice of the first step."""

import math

import numpy as np
import pytest
import torch
from parts import make_solver
from problems import times

from node_cli.ode.control import (
    FIRST_STEP,
    SMALLEST_RATIO,
    Controller,
    Tolerance,
    choose_first_step,
    largest,
    largest_per_sample,
    rms,
    rms_per_sample,
)

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
    assert plain.factor(0.5) == 1.0  # no growth right after an attempt that was rejected
    assert plain.factor(0.5) == 0.9 * 0.5 ** (-1 / 5)  # else nothing of the past


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


def first_step(field, y0, longest, norm=largest, order=4):
    """The step that is chosen at tolerances of 1e-3 and 1e-6."""
    dy0 = field(torch.zeros(()), y0)
    return choose_first_step(Tolerance(1e-3, 1e-6, norm), order, y0, dy0, longest).item()


def test_the_first_step_follows_from_the_time_in_which_the_state_changes_by_its_size():
    y0 = torch.tensor([[2.0]], dtype=torch.float64)
    size = 2 / (1e-6 + 1e-3 * 2)
    for order in (1, 4, 7):
        step = first_step(lambda t, y: -3 * y, y0, 10.0, order=order)
        assert step == pytest.approx(FIRST_STEP / 3 * size ** (-1 / (order + 1)), rel=1e-12)


def test_the_first_step_stays_in_the_interval():
    y0 = torch.ones(1, 2, dtype=torch.float64)
    assert first_step(lambda t, y: 1e-9 * y, y0, 0.05) == 0.05  # a change within what is allowed
    assert first_step(lambda t, y: y, y0, 0.0) == 0.0
    slow = first_step(lambda t, y: 1e-1 * y, y0, 1.0)
    assert slow == pytest.approx(FIRST_STEP * (0.1 / 1.001e-3) ** (-1 / 5))  # it changes by a tenth of its size at most


def test_a_state_or_a_slope_of_zero_gives_a_careful_first_step():
    assert first_step(lambda t, y: 0 * y, torch.ones(1, 2), 10.0) == pytest.approx(FIRST_STEP / 10)
    step = first_step(lambda t, y: 0 * y + 300, torch.zeros(1, 2), 2.0)
    assert step == pytest.approx(FIRST_STEP / 50 * (300 / 50 / 1e-6) ** (-1 / 5))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_where_the_slope_is_no_number_the_first_step_is_one(value):
    assert first_step(lambda t, y: y * value, torch.ones(1, 2), 10.0) == np.float32(1e-6)
    assert first_step(lambda t, y: y * value, torch.ones(1, 2), 1e-9) == np.float32(1e-9)


def test_each_sample_has_a_first_step_of_its_own():
    rates = torch.tensor([[1.0], [100.0], [0.0]], dtype=torch.float64)
    y0, longest = torch.ones(3, 1, dtype=torch.float64), np.array([10.0, 10.0, 5.0])
    together = choose_first_step(Tolerance(1e-3, 1e-6, rms_per_sample), 2, y0, -rates * y0, longest).tolist()
    alone = [
        first_step(lambda t, y, rate=rate: -rate * y, y0[:1], length, norm=rms, order=2)
        for rate, length in zip(rates, longest, strict=True)
    ]
    assert together == pytest.approx(alone, rel=1e-14)
    assert together[1] < together[0] / 10


STIFF = (lambda t, y: -300 * (y - torch.cos(t)), torch.zeros(1, 1, dtype=torch.float64), 1.0)
AT_REST = (lambda t, y: torch.sin(t) ** 2 + 0 * y, torch.zeros(1, 1, dtype=torch.float64), 4.0)
FAST = (lambda t, y: -1e4 * y**3, torch.ones(1, 1, dtype=torch.float64), 1.0)


@pytest.mark.parametrize(("field", "y0", "t1"), [STIFF, AT_REST, FAST], ids=["stiff", "at rest", "fast"])
@pytest.mark.parametrize("name", ["bosh3", "dopri5"])
def test_a_start_that_says_little_costs_few_attempts(name, field, y0, t1):
    attempts = {}
    for first in ("chosen", 1e-3 if field is AT_REST[0] else 1e-5):
        solver = make_solver(name, rtol=1e-4, atol=1e-4, first_step=first)
        stats = solver.integrate(field, y0, times(0, t1)).stats
        attempts[first] = stats.num_accepted + stats.num_rejected
    chosen, careful = attempts.values()
    assert chosen <= careful + 2
