"""Signals and the clock: a run ends at the boundary of a step, saved, and goes on as if it had not."""

import os
import signal
import time

import pytest
import torch
from small_runs import Recorder, build_trainer
from test_continuation import plain

from node_cli.tasks.classification import Classification
from node_cli.training import launched, stopping
from node_cli.training.checkpoint import Checkpoints, read_checkpoint
from node_cli.training.state import TrainingError
from node_cli.training.stopping import Stopped, Stopping

pytestmark = pytest.mark.slow


class SignalAt(Recorder):
    """Sends this process a signal when the record of a step comes."""

    def __init__(self, number, step, tag="train/loss"):
        super().__init__()
        self.number, self.step, self.tag = number, step, tag

    def log_scalars(self, step, values):
        super().log_scalars(step, values)
        if step == self.step and self.tag in values:
            os.kill(os.getpid(), self.number)


def fit(trainer, folder, recorder):
    with Stopping() as asked:
        trainer.fit(recorder, Checkpoints(folder, keep=2), asked)


def stopped(trainer, folder, recorder):
    with pytest.raises(Stopped) as stop:
        fit(trainer, folder, recorder)
    return stop.value


def final_state(trainer):
    state = trainer.state_dict()
    for epoch in state["state"]["history"]:
        epoch.pop("time/step_ms")
    state["state"].pop("seconds")
    return plain(state)


@pytest.fixture
def whole(tmp_path):
    trainer = build_trainer()
    fit(trainer, tmp_path / "whole", Recorder())
    return final_state(trainer)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75), (signal.SIGUSR2, 75)],
)
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_signal_finishes_the_step_and_saves_it(number, status, step, whole, tmp_path, capfd):
    if number in stopping.WARNINGS:
        before = signal.signal(number, signal.SIG_DFL)  # whoever listens is told afterwards: here nobody does
    stop = stopped(build_trainer(), tmp_path / "run", SignalAt(number, step))
    name = signal.Signals(number).name
    assert (str(stop), stop.status) == (f"stopped by {name} after step {step} of 6, which is saved", status)
    again = "; once more ends at once" if name == "SIGINT" else ""
    assert f"{name}: this step is finished and saved{again}\n" in capfd.readouterr().err
    saved = read_checkpoint(tmp_path / "run" / "last.pt")
    assert saved["state"]["step"] == step
    again = build_trainer()
    again.load_state_dict(saved)
    fit(again, tmp_path / "run", Recorder())
    assert final_state(again) == whole
    if number in stopping.WARNINGS:
        signal.signal(number, before)


class SignalInEvaluation(Classification):
    """Sends the signal from within one evaluation, before its second batch of two."""

    def __init__(self, call):
        super().__init__(("a", "b"), label_smoothing=0.0)
        self.call, self.batches = call, 0

    def predict(self, model, batch, generator):
        self.batches += 1
        if self.batches == 2 * self.call - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().predict(model, batch, generator)


@pytest.mark.parametrize(("call", "step", "saved_batch"), [(1, 3, 3), (2, 6, 3), (3, 6, 0)])
def test_an_evaluation_is_given_up_and_made_again(call, step, saved_batch, whole, tmp_path):
    """The validation of each of two epochs, and the test, before which all is saved already."""
    trainer = build_trainer(task=SignalInEvaluation(call), eval_batch_size=4)
    stop = stopped(trainer, tmp_path / "run", Recorder())
    assert str(stop) == f"stopped by SIGTERM after step {step} of 6, which is saved"
    saved = read_checkpoint(tmp_path / "run" / "last.pt")
    assert (saved["state"]["step"], saved["state"]["batch"]) == (step, saved_batch)
    again = build_trainer(eval_batch_size=4)
    again.load_state_dict(saved)
    recorder = Recorder()
    fit(again, tmp_path / "run", recorder)
    assert final_state(again) == whole
    assert len(recorder.of("test/loss")) == 1


def test_a_second_interrupt_ends_at_once(tmp_path):
    class Twice(SignalAt):
        def log_scalars(self, step, values):
            super().log_scalars(step, values)
            super().log_scalars(step, values)

    with pytest.raises(KeyboardInterrupt):
        fit(build_trainer(), tmp_path, Twice(signal.SIGINT, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_second_warning_of_another_kind_changes_nothing(tmp_path):
    class Both(SignalAt):
        def log_scalars(self, step, values):
            super().log_scalars(step, values)
            if step == self.step:
                os.kill(os.getpid(), signal.SIGINT)

    assert stopped(build_trainer(), tmp_path, Both(signal.SIGTERM, 2)).status == 130


def test_the_time_is_up_before_a_step_that_may_take_too_long(tmp_path, monkeypatch):
    """By a clock of its own, which each loss puts forward by ten seconds."""
    now = [0.0]

    class Slow(Classification):
        def loss(self, model, batch, progress):
            now[0] += 10
            return super().loss(model, batch, progress)

    monkeypatch.setattr(stopping, "PROCESS_STARTED", 0.0)
    for clock in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, clock, lambda: now[0])
    trainer = build_trainer(task=Slow(("a", "b"), label_smoothing=0.0), epochs=1000, max_seconds=95.0)
    stop = stopped(trainer, tmp_path, Recorder())
    assert str(stop).startswith(
        "stopped by trainer.max_seconds after step 8 of 3000"
    )  # twice as long as a step is left
    assert stop.status == 75
    assert read_checkpoint(tmp_path / "last.pt")["state"]["step"] == 8


def test_what_is_left_is_enough_for_the_longest_step_so_far():
    asked = Stopping()
    now, day = time.monotonic() - stopping.PROCESS_STARTED, 86_400.0  # however long this test takes
    for days, left, number in [(2.0, 10, 0), (1.0, 10, 0), (None, 10, 0), (5.5, 10, signal.SIGALRM)]:
        if days is not None:
            asked.took(days * day)
        assert asked.asked_by(now + left * day) == number
    assert asked.asked_by(None) == 0


@pytest.mark.parametrize("saved", [0, 3])
def test_no_time_for_a_single_step_is_an_error_and_not_an_invitation(saved, tmp_path, monkeypatch):
    """A scheduler that runs the same command again on status 75 would never end."""
    trainer = build_trainer(epochs=2, max_seconds=1.0)
    if saved:
        stopped(build_trainer(), tmp_path, SignalAt(signal.SIGTERM, saved))
        trainer.load_state_dict(read_checkpoint(tmp_path / "last.pt"))
    monkeypatch.setattr(stopping, "PROCESS_STARTED", time.monotonic() - 2)
    monkeypatch.setattr(Stopping, "got_on", False)
    with pytest.raises(TrainingError, match=r"^trainer.max_seconds=1 is over before this process has finished a step"):
        fit(trainer, tmp_path, Recorder())
    monkeypatch.setattr(Stopping, "got_on", True)  # by another job of a grid, say
    assert stopped(trainer, tmp_path, Recorder()).status == 75


@pytest.mark.parametrize("number", stopping.HANDLED)
def test_once_all_is_saved_a_second_signal_changes_nothing(number, tmp_path):
    """It would kill a process that is about to end, and change the status that says what for."""
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    status = stopped(build_trainer(), tmp_path, SignalAt(number, 2)).status
    os.kill(os.getpid(), number)
    assert status == stopping.STATUS[number]


def test_a_signal_that_comes_too_late_for_a_run_is_not_forgotten(tmp_path):
    """The next job of a grid, or trial of a study, is not begun."""
    with Stopping():
        os.kill(os.getpid(), signal.SIGTERM)
    assert Stopping.missed == signal.SIGTERM


def test_signals_are_handled_for_a_while_and_a_context_that_heard_none_gives_all_back():
    heard = []
    before = [signal.getsignal(number) for number in stopping.HANDLED]
    with stopping.handling(stopping.HANDLED, lambda number, frame: heard.append(number)):
        pass
    assert [signal.getsignal(number) for number in stopping.HANDLED] == before
    with pytest.raises(ValueError), stopping.handling(stopping.HANDLED, lambda number, frame: heard.append(number)):
        raise ValueError
    assert [signal.getsignal(number) for number in stopping.HANDLED] == before
    with stopping.handling(stopping.HANDLED, lambda number, frame: heard.append(number)):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert heard == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_one_of_several_that_has_failed_is_let_to_say_why(monkeypatch, capfd):
    """The launcher sends a signal to those that are left when the first one has ended."""
    for name in launched.VARIABLES:
        monkeypatch.setenv(name, "0")
    with Stopping() as stopping:
        stopping.failed()
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err == ""


def test_handlers_are_put_back_and_warnings_handed_on():
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with Stopping() as asked:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert asked.asked_by(None) == signal.SIGUSR2
            assert heard == []
        assert heard == [signal.SIGUSR2]
        os.kill(os.getpid(), signal.SIGUSR2)
        assert heard == [signal.SIGUSR2] * 2
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_what_the_parent_ignores_stays_ignored():
    """As nohup and `&` in a script have it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stopping() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert asked.asked_by(None) == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_can_train_too(tmp_path):
    """Where no handler can be set."""
    import threading

    errors = []

    def train():
        try:
            torch.set_num_threads(1)
            fit(build_trainer(), tmp_path, Recorder())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert errors == []


@pytest.mark.parametrize("comes", ["before", "within"])
def test_before_the_first_step_a_signal_ends_the_run_at_once(comes):
    """A download, say, or the wait for another's."""
    with Stopping() as asked:
        if comes == "before":
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped, match="stopped by SIGTERM before the first step") as stopped, asked.at_once():
            signal.raise_signal(signal.SIGTERM)
    assert stopped.value.status == 143


def test_after_it_no_signal_does():
    with Stopping() as asked:
        with asked.at_once():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.asked_by(None) == signal.SIGTERM
