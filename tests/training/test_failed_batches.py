"""Batches and samples whose solve fails, under each policy."""

import contextlib
import logging
import math
import re

import pytest
import torch
from parts import make_part
from small_runs import Recorder, build_ode_net, build_trainer, point_dataset
from torch import nn
from touchy import Touchy

from node_cli.models.ode_block import ode_blocks
from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.solvers import fallback_of
from node_cli.training.checkpoint import Checkpoints
from node_cli.training.evaluation import metric_names
from node_cli.training.failures import fallback_solvers
from node_cli.training.trainer import TrainingError

UNDERFLOW = "the ODE solve failed at t = 0 after 7 evaluations: the step size underflowed"
FAR = 9.0  # beyond the limit of `Touchy`


def point_net(solver, gradient="direct", **changes):
    return build_ode_net("odenet_mlp", solver, make_part("gradient", gradient), **changes)


def dataset_with(split="train", far=(3,), num_train=20):
    """Some samples of one split lie beyond the limit."""
    dataset = point_dataset(num_train)
    dataset.splits[split]["inputs"][list(far)] = FAR
    return dataset


@pytest.fixture(autouse=True)
def _log_epochs(caplog):
    caplog.set_level(logging.INFO, "node_cli")


def fit(trainer, folder):
    recorder = Recorder()
    trainer.fit(recorder, Checkpoints(folder, keep=2))
    return recorder


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_equal(one, other):
    assert all(torch.equal(one[name], other[name]) for name in one)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


def trainer_of(solver, *, gradient="direct", dataset=None, **settings):
    dataset = dataset_with() if dataset is None else dataset
    return build_trainer(point_net(solver, gradient), dataset, **settings)


def test_a_skipped_batch_is_consumed_without_an_update(tmp_path, caplog):
    whole = trainer_of(Touchy(limit=math.inf), schedule=lambda done: 1 - done, epochs=1)
    trainer = trainer_of(Touchy(on_failure="skip_batch"), schedule=lambda done: 1 - done, epochs=1)
    all_records, records = fit(whole, tmp_path / "whole"), fit(trainer, tmp_path / "skipped")
    assert (trainer.state.step, trainer.state.num_skipped, trainer.state.num_fallbacks) == (3, 1, 0)
    losses = {step: value for step, tag, value in records.scalars if tag == "train/loss"}
    (skipped,) = {1, 2, 3} - set(losses)
    rates = {step: value for step, tag, value in all_records.scalars if tag == "lr" and step != skipped}
    assert {step: value for step, tag, value in records.scalars if tag == "lr"} == rates
    counts = {step: value for step, tag, value in records.scalars if tag == "solver/skipped"}
    assert counts == {step: int(step >= skipped) for step in (1, 2, 3)}
    (line,) = [message for message in caplog.messages if "skipped (" in message]
    assert line.startswith(f"step {skipped}: batch skipped (1 of at most 10): {UNDERFLOW}")
    assert "solver/skipped 1" in caplog.messages[-1]


def test_means_of_an_epoch_leave_a_skipped_batch_out(tmp_path):
    trainer = trainer_of(Touchy(on_failure="skip_batch"), epochs=1)
    recorder = fit(trainer, tmp_path)
    sizes = {1: 8, 2: 8, 3: 4}
    losses = {step: value for step, tag, value in recorder.scalars if tag == "train/loss"}
    assert len(losses) == 2
    mean = sum(sizes[step] * loss for step, loss in losses.items()) / sum(sizes[step] for step in losses)
    (epoch,) = trainer.state.history
    assert epoch["train/loss"] == pytest.approx(mean)
    assert epoch["solver/accepted"] == 3
    assert epoch["solver/skipped"] == 1


@pytest.mark.parametrize(("gradient", "only_backward"), [("direct", False), ("adjoint", False), ("adjoint", True)])
def test_epochs_in_which_every_batch_is_skipped_change_nothing(gradient, only_backward, tmp_path, caplog):
    solver = Touchy(on_failure="skip_batch", only_backward=only_backward)
    trainer = trainer_of(solver, gradient=gradient, dataset=dataset_with(num_train=8), optimizer=adam, epochs=2)
    before = weights(trainer.model)
    recorder = fit(trainer, tmp_path)
    assert_equal(weights(trainer.model), before)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert trainer.optimizer.state_dict()["state"] == {}
    assert recorder.of("solver/skipped") == [1, 2]
    assert recorder.of("train/loss") == []
    assert len(recorder.of("val/loss")) == 2
    assert [set(epoch) & {"train/loss", "nfe/forward"} for epoch in trainer.state.history] == [set(), set()]
    assert "step 2: batch skipped (2 of at most 10)" in "\n".join(caplog.messages)


@pytest.mark.parametrize(("policy", "tag"), [("skip_batch", "solver/skipped"), ("fallback", "solver/fallbacks")])
def test_a_batch_that_failed_is_recorded_whatever_the_interval(policy, tag, tmp_path):
    trainer = trainer_of(Touchy(on_failure=policy), log_every_steps=100)
    values = fit(trainer, tmp_path).of(tag)
    assert values[-2:] == [1, 2]
    assert len(values) <= 3


def test_one_more_than_max_skipped_ends_the_run(tmp_path):
    solver = Touchy(on_failure="skip_batch")
    trainer = trainer_of(solver, dataset=dataset_with(num_train=8), epochs=9, max_skipped=2)
    with pytest.raises(TrainingError) as failure:
        fit(trainer, tmp_path)
    text = str(failure.value)
    assert text.startswith(
        f"step 3: 3 batches could not be solved, more than trainer.max_skipped=2; the last: {UNDERFLOW}"
    )
    assert text.endswith(". Follow this advice, take solver.on_failure=fallback, or allow more of them")


@pytest.mark.parametrize(("gradient", "only_backward"), [("direct", False), ("adjoint", False), ("adjoint", True)])
def test_a_batch_that_falls_back_is_as_if_solved_by_the_fallback(gradient, only_backward, tmp_path, caplog):
    solver = Touchy(on_failure="fallback", only_backward=only_backward)
    settings = {"gradient": gradient, "optimizer": adam, "epochs": 2}
    trainer = trainer_of(solver, dataset=dataset_with(num_train=8), **settings)
    other = trainer_of(fallback_of(solver), dataset=dataset_with(num_train=8), **settings)
    recorder, expected = fit(trainer, tmp_path / "one"), fit(other, tmp_path / "other")
    assert_equal(weights(trainer.model), weights(other.model))
    for tag in ("train/loss", "nfe/forward", "nfe/backward", "solver/accepted"):
        assert recorder.of(tag) == expected.of(tag)
    assert (trainer.state.num_skipped, trainer.state.num_fallbacks) == (0, 2)
    assert recorder.of("solver/fallbacks") == [1, 2]
    assert all(block.solver is solver for block in trainer.model.blocks)
    (line,) = [message for message in caplog.messages if message.startswith("step")]
    assert line.startswith("step 1: the fallback solves this batch (later ones are only counted): the ODE solve failed")


def test_only_the_failed_batch_falls_back(tmp_path):
    recorder = fit(trainer_of(Touchy(on_failure="fallback"), epochs=1), tmp_path)
    assert sorted(recorder.of("nfe/forward")) == [3, 3, 4 * 5]


def test_a_fallback_that_fails_too_ends_the_run(tmp_path):
    solver, dataset = Touchy(on_failure="fallback"), point_dataset(num_train=8)
    dataset.splits["train"]["inputs"][3] = math.inf
    trainer = trainer_of(solver, dataset=dataset)
    before = weights(trainer.model)
    with pytest.raises(TrainingError) as failure:
        fit(trainer, tmp_path)
    text = str(failure.value)
    assert text.startswith(f"step 1: {UNDERFLOW}")
    assert re.search(r"\. Its fallback failed too: the ODE solve failed at t = .*: the state is not finite at", text)
    assert_equal(weights(trainer.model), before)
    assert all(block.solver is solver for block in trainer.model.blocks)


def test_every_block_falls_back_and_comes_back():
    model = point_net(Touchy(), num_blocks=2)
    model.blocks[1].solver = Touchy(num_steps=2, fallback_steps=4)
    with fallback_solvers(model):
        assert [block.solver for block in model.blocks] == [fallback_of(Touchy()), fallback_of(model.blocks[1].solver)]
        assert [block.solver.num_steps for block in model.blocks] == [5, 4]
    assert [block.solver.num_steps for block in model.blocks] == [3, 2]


class Normalized(nn.Module):
    """Running means that a forward pass changes before the solve fails."""

    def __init__(self, solver):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.net = point_net(solver)

    def forward(self, points):
        self.norm(points)
        return self.net(points)


def running_mean(solver, folder):
    trainer = build_trainer(Normalized(solver), dataset_with(num_train=8), epochs=1)
    fit(trainer, folder)
    return trainer.model.norm.running_mean.tolist(), trainer.model.norm.num_batches_tracked.item()


def test_a_failed_attempt_leaves_running_means_alone(tmp_path):
    once = running_mean(Touchy(limit=math.inf), tmp_path / "whole")
    assert running_mean(Touchy(on_failure="skip_batch"), tmp_path / "skipped") == ([0.0, 0.0], 0)
    assert running_mean(Touchy(on_failure="fallback"), tmp_path / "fallback") == once
    assert once[1] == 1


@pytest.mark.parametrize(("policy", "expected"), [("skip_batch", 0.125), ("raise", None)])
def test_a_skipped_batch_leaves_the_step_that_a_block_carries_over(policy, expected, tmp_path):
    """The first block solves and forgets it, the second one fails."""
    model = point_net(Touchy(on_failure=policy, limit=math.inf), "adjoint", num_blocks=2)
    model.blocks[1].solver = Touchy(on_failure=policy)
    model.blocks[0].first_steps.forward = 0.125
    trainer = build_trainer(model, dataset_with(num_train=8), epochs=1)
    with contextlib.nullcontext() if policy == "skip_batch" else pytest.raises(TrainingError):
        fit(trainer, tmp_path)
    assert model.blocks[0].first_steps.forward == expected


def test_a_fallback_that_the_gradient_does_not_go_with_is_refused_at_the_start():
    model = point_net(Touchy(on_failure="fallback"))
    model.blocks[0].gradient = Adjoint(rtol=1e-3, atol=None, norm="full")
    with pytest.raises(ValueError, match=r"^solver\.on_failure=fallback solves by rk4, which has no tolerances"):
        build_trainer(model)
    model.blocks[0].solver = Touchy(on_failure="skip_batch")
    build_trainer(model)


def test_samples_that_fail_in_a_validation_are_counted_in_every_epoch(tmp_path, caplog):
    clean = trainer_of(Touchy(limit=math.inf), dataset=dataset_with("val", far=()), epochs=2)
    fit(clean, tmp_path / "clean")
    trainer = trainer_of(Touchy(on_failure="skip_batch"), dataset=dataset_with("val", far=(2, 5)), epochs=2)
    recorder = fit(trainer, tmp_path / "failing")
    assert recorder.of("val/failed") == [2, 2]
    assert recorder.of("test/failed") == [0]
    assert [epoch["val/failed"] for epoch in trainer.state.history] == [2, 2]
    assert max(recorder.of("val/accuracy")) <= 6 / 8
    assert recorder.of("train/loss") == [value for value in recorder.of("train/loss") if math.isfinite(value)]
    assert "val/failed 2" in caplog.messages[-1]
    assert metric_names(trainer.model, trainer.task) == ("loss", "accuracy", "error", "failed")


def test_with_raise_nothing_is_counted(tmp_path):
    trainer = trainer_of(Touchy(limit=math.inf), epochs=1)
    tags = {tag for _, tag, _ in fit(trainer, tmp_path).scalars}
    assert tags.isdisjoint({"val/failed", "test/failed", "solver/skipped", "solver/fallbacks"})
    assert metric_names(trainer.model, trainer.task) == ("loss", "accuracy", "error")


def test_pictures_of_a_test_in_which_samples_failed(tmp_path):
    trainer = trainer_of(Touchy(on_failure="fallback"), dataset=dataset_with("test", far=(0, 7)), epochs=1)
    recorder = Recorder(takes_images=True)
    trainer.fit(recorder, Checkpoints(tmp_path, keep=2))
    assert recorder.of("test/failed") == [2]
    assert recorder.tags == ["train/inputs", "test/confusion_matrix", "test/wrong_predictions", "test/plane"]


@pytest.mark.parametrize(
    ("on_failure", "so"), [("skip_batch", "and so for each of the 8 samples alone; "), ("raise", "")]
)
def test_a_validation_without_any_prediction_ends_the_run(on_failure, so, tmp_path):
    trainer = trainer_of(Touchy(on_failure=on_failure), dataset=dataset_with("val", far=range(8)), epochs=1)
    expected = f"evaluating the val split after step 3: {UNDERFLOW.replace('the step', so + 'the step')}"
    with pytest.raises(TrainingError, match=f"^{re.escape(expected)}"):
        fit(trainer, tmp_path)


class Drifting(nn.Module):
    """A vector field with a memory: another one at each evaluation."""

    def __init__(self, vector_field):
        super().__init__()
        self.vector_field = vector_field
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return self.calls * self.vector_field(t, y)


def test_a_field_that_a_gradient_refuses_ends_the_run_with_advice_in_keys(tmp_path):
    model = point_net(make_part("solver", "rk4", num_steps=2), "checkpoint")
    for block in ode_blocks(model).values():
        block.vector_field = Drifting(block.vector_field)
    expected = (
        r"^step 1: the vector field has changed since the solve: .* take gradient=direct, .* solver\.compile=step$"
    )
    with pytest.raises(TrainingError, match=expected):
        fit(build_trainer(model), tmp_path)
