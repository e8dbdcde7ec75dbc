"""How the learning rate goes on where a run is continued with another length or peak: never by a jump unsaid."""

import math
import re

import pytest
import torch
from small_runs import Recorder, build_trainer

from node_cli.training.checkpoint import Checkpoints, read_checkpoint
from node_cli.training.learning_rate import ON_RESUME, LearningRate
from node_cli.training.schedules import Constant, Cosine, OneCycle, Step
from node_cli.training.state import ContinuationError

SCHEDULES = {
    "constant": Constant(),
    "step": Step(milestones=[0.4, 0.8], factor=0.1),
    "cosine": Cosine(warmup=0.2, final=0.0),
    "one_cycle": OneCycle(warmup=0.3, initial=0.04, final=1e-4),
}


class Run:
    """The learning rates of a run that is stopped and continued, without the run."""

    def __init__(self, schedule, total, on_resume="continue", peak=1.0):
        self.optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
        self.rate = LearningRate(SCHEDULES[schedule], self.optimizer, total, on_resume)

    def rates(self, first, last):
        found = []
        for step in range(first, last):
            self.rate.set(step)
            found.append(self.optimizer.param_groups[0]["lr"])
        return found

    def continued(self, schedule, step, total, on_resume="continue", peak=1.0, saved=True):
        other = Run(schedule, total, on_resume, peak)
        other.optimizer.load_state_dict(self.optimizer.state_dict())
        other.rate.load_state_dict(self.rate.state_dict() if saved else None, step)
        return other


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("stopped", [1, 3, 9])
def test_of_the_same_length_it_is_the_run_that_was_not_stopped(schedule, stopped):
    whole = Run(schedule, 10).rates(0, 10)
    run = Run(schedule, 10)
    assert run.rates(0, stopped) == whole[:stopped]
    for policy in ON_RESUME:
        late = run.continued(schedule, stopped, 10, policy)
        assert late.rates(stopped, 10) == whole[stopped:]
        assert late.rate.change == ""


@pytest.mark.parametrize(
    ("schedule", "policy", "expected"),
    [  # of a run of four steps, made one of eight
        ("step", "continue", [0.01] * 4),
        ("step", "stretch", [0.1, 0.1, 0.1, 0.01]),
        ("step", "restart", [1, 1, 0.1, 0.1]),
        ("step", "constant", [0.1] * 4),
        ("cosine", "continue", [0] * 4),
        ("cosine", "stretch", [(1 + math.cos(math.pi * (done - 0.2) / 0.8)) / 2 for done in (0.5, 0.625, 0.75, 0.875)]),
        ("cosine", "restart", Run("cosine", 4).rates(0, 4)),
        ("cosine", "constant", Run("cosine", 4).rates(3, 4) * 4),
        ("one_cycle", "continue", [1e-4] * 4),
        ("one_cycle", "restart", Run("one_cycle", 4).rates(0, 4)),
        ("constant", "continue", [1] * 4),
        ("constant", "restart", [1] * 4),
    ],
)
def test_rates_of_a_finished_run_that_is_made_longer(schedule, policy, expected):
    run = Run(schedule, 4)
    run.rates(0, 4)
    assert run.continued(schedule, 4, 8, policy).rates(4, 8) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("stopped", "total"), [(300, 2000), (700, 800), (999, 5000), (1000, 3000)])
def test_no_policy_jumps_without_saying_so(schedule, stopped, total):
    """Of a run of a thousand steps; what is said holds the rate before, the one after, and the highest to come."""
    run = Run(schedule, 1000)
    (before,) = run.rates(0, stopped)[-1:]
    for policy in ON_RESUME:
        late = run.continued(schedule, stopped, total, policy)
        after = late.rates(stopped, total)
        said = re.match(r"learning rate (\S+) before, (\S+) from here on(?:, rising to (\S+))? \(", late.rate.change)
        was, now = (float(number) for number in said.groups()[:2])
        assert (was, now) == pytest.approx((before, after[0]), rel=0.006, abs=1e-9), policy
        assert max(after) == pytest.approx(float(said[3] or now), rel=0.02), policy
        assert f"scheduler.on_resume={policy}" in late.rate.change
        if policy in ("continue", "constant") and schedule != "step":
            assert abs(after[0] - before) < 0.006, policy


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_what_is_left_of_a_schedule_ends_where_it_ends(schedule):
    """Continued in its middle: the same rates, at half of the pace."""
    run = Run(schedule, 10)
    run.rates(0, 6)
    whole, late = Run(schedule, 10).rates(0, 10), run.continued(schedule, 6, 14)
    assert late.rates(6, 14)[::2] == pytest.approx(whole[6:])


def test_the_advice_where_a_schedule_has_ended():
    run = Run("one_cycle", 10, peak=0.02)
    run.rates(0, 10)
    late = run.continued("one_cycle", 10, 30, peak=0.02)
    assert late.rate.change.endswith(
        "2e-06 from here on (scheduler.on_resume=continue); its schedule has ended, for another one "
        "scheduler.on_resume=restart (the schedule once more), stretch (that of the longer run) or constant "
        "(with optimizer.lr=..., at that)"
    )
    flat = Run("constant", 10)
    flat.rates(0, 10)
    assert "ended" not in flat.continued("constant", 10, 30).rate.change


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("constant", [0.5] * 4), ("restart", Run("one_cycle", 4, peak=0.5).rates(0, 4)), ("stretch", None)],
)
def test_another_peak(policy, expected):
    run = Run("one_cycle", 4)
    run.rates(0, 4)
    late = run.continued("one_cycle", 4, 8, policy, peak=0.5).rates(4, 8)
    assert late == (expected or [0.5 * rate for rate in Run("one_cycle", 8).rates(4, 8)])


def test_another_peak_needs_a_policy():
    run = Run("one_cycle", 4)
    run.rates(0, 4)
    with pytest.raises(ContinuationError, match=r"^optimizer.lr: 1 -> 0.5: say how the learning rate goes on, sched"):
        run.continued("one_cycle", 4, 8, peak=0.5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_checkpoint_of_an_earlier_version(schedule):
    """It does not hold its plan: that of now will do, where it gives the rates of then."""
    run = Run(schedule, 10)
    run.rates(0, 7)
    assert run.continued(schedule, 7, 10, saved=False).rates(7, 10) == Run(schedule, 10).rates(7, 10)
    if schedule == "constant":
        assert run.continued(schedule, 7, 30, saved=False).rates(7, 30) == [1] * 23
    else:
        with pytest.raises(ContinuationError, match="of an earlier version and does not say how long its run"):
            run.continued(schedule, 7, 30, saved=False)


def test_an_unknown_policy():
    with pytest.raises(ValueError, match="must be one of continue, stretch, restart, constant, got often"):
        Run("constant", 3, "often")


def trained(folder, checkpoint=None, **settings):
    """The weights of a run that is continued; three batches make an epoch."""
    torch.manual_seed(0)
    trainer = build_trainer(schedule=SCHEDULES["one_cycle"], save_every_steps=1, keep=99, **settings)
    if checkpoint is not None:
        trainer.load_state_dict(read_checkpoint(folder / f"{checkpoint}.pt"))
    recorder = Recorder()
    trainer.fit(recorder, Checkpoints(folder, keep=99))
    return recorder.of("lr"), trainer.model.state_dict()


@pytest.mark.parametrize("policy", ON_RESUME)
def test_a_continuation_that_is_stopped_goes_on_exactly(policy, tmp_path):
    """The next command does not say the policy, or says it again: it was for the first continuation."""
    trained(tmp_path, epochs=2)
    rates, weights = trained(tmp_path, "last", epochs=4, on_resume=policy)
    for again in ("continue", policy):
        late, end = trained(tmp_path, "step-00000008", epochs=4, on_resume=again)
        assert late == rates[2:]
        assert all(torch.equal(weights[name], end[name]) for name in weights)


@pytest.mark.parametrize(
    ("checkpoint", "settings", "message"),
    [
        ("last", {"epochs": 1}, "trainer.epochs=1 is too few: 2 epochs are done"),
        ("step-00000005", {"epochs": 1}, "trainer.epochs=1 is too few: the run is in epoch 2, at step 5"),
        ("last", {"max_steps": 4}, "trainer.max_steps=4 is too few: 6 steps are done"),
        ("last", {"epochs": 9, "max_steps": 5}, "trainer.max_steps=5 is too few: 6 steps are done"),
    ],
)
def test_less_than_is_done(checkpoint, settings, message, tmp_path):
    trained(tmp_path, epochs=2)
    with pytest.raises(ContinuationError, match=f"^{message}$"):
        trained(tmp_path, checkpoint, **settings)
