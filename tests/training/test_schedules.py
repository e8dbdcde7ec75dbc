import math

import pytest

from node_cli.training.schedules import Constant, Cosine, OneCycle, Step


def test_constant_is_the_peak_throughout():
    assert [Constant()(done) for done in (0.0, 0.5, 1.0)] == [1.0, 1.0, 1.0]


def test_step_multiplies_from_each_milestone_on():
    schedule = Step(milestones=[0.25, 0.75], factor=0.1)
    shares = [0.0, 0.2499, 0.25, 0.7499, 0.75, 1.0]
    assert [schedule(done) for done in shares] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_step_meets_its_milestone_at_the_very_update():
    schedule = Step(milestones=[0.3, 0.7], factor=0.5)
    assert [schedule(step / 10) for step in range(10)] == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_step_without_milestones_is_constant():
    assert Step(milestones=[], factor=0.1)(0.9) == 1


@pytest.mark.parametrize(
    ("schedule", "done", "expected"),
    [
        (Cosine(warmup=0.0, final=0.0), 0.0, 1.0),
        (Cosine(warmup=0.0, final=0.0), 0.25, (1 + math.cos(math.pi / 4)) / 2),
        (Cosine(warmup=0.0, final=0.2), 0.5, 0.6),
        (Cosine(warmup=0.0, final=0.2), 1.0, 0.2),
        (Cosine(warmup=0.2, final=0.0), 0.0, 0.0),
        (Cosine(warmup=0.2, final=0.0), 0.05, 0.25),
        (Cosine(warmup=0.2, final=0.0), 0.2, 1.0),
        (Cosine(warmup=0.2, final=0.5), 0.6, 0.75),
        (OneCycle(warmup=0.4, initial=0.1, final=0.0), 0.0, 0.1),
        (OneCycle(warmup=0.4, initial=0.1, final=0.0), 0.2, 0.55),
        (OneCycle(warmup=0.4, initial=0.1, final=0.0), 0.4, 1.0),
        (OneCycle(warmup=0.4, initial=0.1, final=0.5), 0.7, 0.75),
        (OneCycle(warmup=0.4, initial=0.1, final=0.5), 1.0, 0.5),
        (OneCycle(warmup=0.0, initial=0.1, final=0.5), 0.0, 1.0),
    ],
)
def test_closed_values(schedule, done, expected):
    assert schedule(done) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("schedule", [Cosine(warmup=0.3, final=0.1), OneCycle(warmup=0.3, initial=0.04, final=1e-4)])
def test_rises_to_the_peak_and_falls_without_a_jump(schedule):
    rates = [schedule(step / 1000) for step in range(1001)]
    assert rates[:301] == sorted(rates[:301])
    assert rates[300:] == sorted(rates[300:], reverse=True)
    assert max(abs(b - a) for a, b in zip(rates, rates[1:], strict=False)) < 0.006  # pi/2 x 1/300 is the steepest


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Step(milestones=[0.5, 0.2], factor=0.1),
            r"milestones must rise and lie between 0 and 1, got \[0.5, 0.2\]",
        ),
        (lambda: Step(milestones=[60], factor=0.1), r"milestones must rise and lie between 0 and 1, got \[60\]"),
        (lambda: Step(milestones=[math.nan], factor=0.1), r"milestones must rise .* got \[nan\]"),
        (lambda: Step(milestones=[0.5], factor=0.0), "factor must be positive, got 0.0"),
        (lambda: Cosine(warmup=1.0, final=0.0), "warmup must be 0 or more and below 1, got 1.0"),
        (lambda: Cosine(warmup=0.0, final=-0.1), "final must be 0 or more and below 1, got -0.1"),
        (lambda: OneCycle(warmup=-0.1, initial=0.0, final=0.0), "warmup must be 0 or more and below 1, got -0.1"),
        (lambda: OneCycle(warmup=0.1, initial=2.0, final=0.0), "initial must be 0 or more and below 1, got 2.0"),
        (lambda: OneCycle(warmup=0.1, initial=0.0, final=math.nan), "final must be 0 or more and below 1, got nan"),
    ],
)
def test_refusals(build, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build()
