"""Numbers that go bad: they reach neither the weights nor the best checkpoint."""

import math
import re
import resource
from functools import partial
from pathlib import Path

import pytest
import torch
from parts import make_part
from small_runs import Recorder, build_ode_net, build_trainer, point_dataset
from torch import nn

from node_cli.ode.solution import SolveError, Status
from node_cli.tasks.classification import Classification
from node_cli.tasks.task import Loss
from node_cli.training.checkpoint import Checkpoints, read_checkpoint
from node_cli.training.memory import reporting_out_of_memory
from node_cli.training.state import TrainingError


class SpoiledTask(Classification):
    """The losses, or the gradients, of some steps are spoiled."""

    def __init__(self, **factors):
        super().__init__(("a", "b"), label_smoothing=0.0)
        self.factors, self.step = factors, 0

    def loss(self, model, batch, progress):
        loss = super().loss(model, batch, progress)
        self.step += 1
        factor = self.factors.get(f"step{self.step}", 1.0)
        if factor == "gradient":
            return loss._replace(total=loss.total + (model.weight - model.weight.detach()).sum().sqrt())
        return loss._replace(total=loss.total * factor)


class SpoiledValidation(Classification):
    """Validations have the losses that are listed."""

    objective = ("loss", "min")

    def __init__(self, *losses):
        super().__init__(("a", "b"), label_smoothing=0.0)
        self.losses = list(losses)

    def metrics(self, batch, rows):
        loss = self.losses.pop(0) if self.losses else 1.0
        return {"loss": loss, "accuracy": 0.5, "error": 0.5}


def fit(trainer, folder):
    recorder = Recorder()
    trainer.fit(recorder, Checkpoints(folder, keep=2))
    return recorder


def weights(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


BAD = {"nan": math.nan, "inf": math.inf, "gradient": "gradient", "spike": 30.0}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_step_is_as_if_it_had_not_been(bad, tmp_path):
    task = SpoiledTask(step3=bad)
    trainer = build_trainer(task=task, epochs=1, on_bad_step="skip_batch", spike_factor=20.0, average_decay=0.5)
    recorder = fit(trainer, tmp_path)
    untouched = build_trainer(epochs=None, max_steps=2, average_decay=0.5)
    fit(untouched, tmp_path / "untouched")
    assert all(map(torch.equal, weights(trainer.model), weights(untouched.model)))
    assert all(map(torch.equal, weights(trainer.evaluated), weights(untouched.evaluated)))
    assert recorder.of("train/skipped") == [0, 0, 1]
    assert len(recorder.of("train/loss")) == 2
    assert trainer.state.num_bad == 1


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_step_ends_the_run_where_nothing_else_is_said(bad, tmp_path):
    trainer = build_trainer(task=SpoiledTask(step1=1.0, step2=bad), epochs=1, spike_factor=20.0)
    before = []
    trainer.optimizer.register_step_post_hook(lambda *_: before.append(weights(trainer.model)))
    with pytest.raises(TrainingError, match=r"^step 2: the loss .* the weights were not changed\. Lower optimizer\.lr"):
        fit(trainer, tmp_path)
    assert len(before) == 1
    assert all(map(torch.equal, weights(trainer.model), before[0]))


def test_a_spike_is_told_with_what_is_usual(tmp_path):
    trainer = build_trainer(task=SpoiledTask(step3=30.0), epochs=1, spike_factor=20.0)
    with pytest.raises(TrainingError) as failure:
        fit(trainer, tmp_path)
    assert re.match(
        r"step 3: the loss is a spike, [\d.]+ against [\d.]+ as usual \(more than trainer", str(failure.value)
    )


def test_negative_losses_have_spikes_too(tmp_path):
    """Of densities, say: a loss of -2 that becomes -1.9 is none, one that becomes 100 is."""

    class Density(Classification):
        losses = iter([-2.0, -1.9, 100.0])

        def loss(self, model, batch, progress):
            return Loss(model.weight.sum() * 0 + next(self.losses), torch.tensor(1.0), {})

    trainer = build_trainer(task=Density(("a", "b"), label_smoothing=0.0), epochs=1, spike_factor=3.0)
    with pytest.raises(TrainingError, match="step 3: the loss is a spike, 100 against -1"):
        fit(trainer, tmp_path)


def test_a_batch_of_which_nothing_counts_is_a_bad_step(tmp_path):
    class Unobserved(Classification):
        def loss(self, model, batch, progress):
            return super().loss(model, batch, progress)._replace(weight=torch.tensor(0))

    trainer = build_trainer(task=Unobserved(("a", "b"), label_smoothing=0.0), epochs=1)
    with pytest.raises(TrainingError, match=r"^step 1: the loss of this batch is a sum over nothing"):
        fit(trainer, tmp_path)


def test_bad_steps_and_failed_solves_share_one_bound(tmp_path):
    task = SpoiledTask(step2=math.nan, step3=math.nan)
    trainer = build_trainer(task=task, epochs=1, on_bad_step="skip_batch", max_skipped=1)
    with pytest.raises(TrainingError) as failure:
        fit(trainer, tmp_path)
    assert str(failure.value).startswith(
        "step 3: 2 batches were bad steps, more than trainer.max_skipped=1; the last: "
    )
    assert str(failure.value).endswith("Follow this advice, or allow more of them")


def test_a_fallback_that_ends_in_a_bad_step_is_skipped(tmp_path):
    from touchy import Touchy

    dataset = point_dataset()
    dataset.splits["train"]["inputs"][3] = 1e38  # fails the solve, and overflows in its fallback's loss
    model = build_ode_net("odenet_mlp", Touchy(on_failure="fallback"), make_part("gradient", "direct"))
    trainer = build_trainer(model, dataset, epochs=1, on_bad_step="skip_batch")
    before = weights(trainer.model)
    fit(trainer, tmp_path)
    assert (trainer.state.num_fallbacks, trainer.state.num_bad) == (1, 1)
    assert all(torch.isfinite(weight).all() for weight in weights(trainer.model))
    assert not all(map(torch.equal, weights(trainer.model), before))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_validation_that_is_not_finite_is_never_the_best(loss, tmp_path, caplog):
    trainer = build_trainer(task=SpoiledValidation(loss, 2.0, loss), epochs=3, on_bad_step="skip_batch")
    fit(trainer, tmp_path)
    assert trainer.state.best_epoch == 2
    assert read_checkpoint(tmp_path / "best.pt")["state"]["epoch"] == 2
    assert "the validation after step 3 is not finite: it is not held to be the best" in caplog.messages


def test_a_validation_that_is_not_finite_ends_the_run_where_nothing_else_is_said(tmp_path):
    trainer = build_trainer(task=SpoiledValidation(math.nan), epochs=2)
    message = "the validation after step 3 is not finite: lower optimizer.lr, or clip gradients"
    with pytest.raises(TrainingError, match=message):
        fit(trainer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_finite_validation_there_is_nothing_to_test(tmp_path):
    trainer = build_trainer(task=SpoiledValidation(math.nan), epochs=1, on_bad_step="skip_batch")
    with pytest.raises(TrainingError, match=r"no validation of this run was finite: lower optimizer\.lr"):
        fit(trainer, tmp_path)


class Hungry(nn.Linear):
    """Asks for more than a process can address here, in training or else in evaluation."""

    def __init__(self, *, in_training):
        super().__init__(2, 2)
        self.in_training = in_training

    def forward(self, inputs):
        if self.training == self.in_training:
            torch.empty(1 << 45, dtype=torch.uint8)  # 32 TiB
        return super().forward(inputs)


def main():
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (1 << 42 if hard == resource.RLIM_INFINITY else min(1 << 42, hard), hard))
    for in_training in (True, False):
        try:
            fit(build_trainer(Hungry(in_training=in_training)), Path(str(in_training)))
        except TrainingError as error:
            print(error)


def test_out_of_memory_is_told_with_what_to_change(begin, tmp_path):
    process = begin(tmp_path, "test_bad_steps")
    out, err = process.communicate()
    assert process.returncode == 0, err
    training, validation = out.splitlines()
    assert training.startswith("step 1: out of memory (you tried to allocate 35184372088832 bytes")
    assert "Take gradient=checkpoint, bound" in training
    assert validation.startswith("evaluating the val split after step 3: out of memory (you tried")
    assert "Lower trainer.eval_batch_size" in validation


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match=r"^a bug$"), reporting_out_of_memory("here", "do this"):
        raise RuntimeError("a bug")
    told = r"^here: out of memory \(CUDA out of memory\. Tried\)\. do this$"
    with pytest.raises(TrainingError, match=told), reporting_out_of_memory("here", "do this"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried")


def test_a_model_that_keeps_running_means_forgets_those_of_a_bad_step(tmp_path):
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    trainer = build_trainer(model, task=SpoiledTask(step1=math.nan), epochs=None, max_steps=1, on_bad_step="skip_batch")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit(trainer, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_lbfgs_reaches_the_minimum_of_a_convex_loss_where_as_many_steps_of_sgd_do_not(tmp_path: Path):
    losses = {}
    for name, optimizer in {
        "lbfgs": partial(torch.optim.LBFGS, line_search_fn="strong_wolfe"),
        "sgd": partial(torch.optim.SGD, lr=0.1),
    }.items():
        torch.manual_seed(0)
        model = nn.Linear(2, 2)
        trainer = build_trainer(model, point_dataset(), optimizer=optimizer, epochs=20, batch_size=999)
        trainer.fit(Recorder(), None)
        loss = trainer.task.loss(model, trainer.dataset.splits["train"], 1.0)
        losses[name] = loss.total / loss.weight
    assert losses["lbfgs"] < losses["sgd"]


def test_a_line_search_into_infinity_changes_nothing():
    class Cliff(Classification):
        """Fine where the weights begin, and not a number anywhere else."""

        start = None

        def loss(self, model, batch, progress):
            self.start = model.weight.detach().clone() if self.start is None else self.start
            total = model.weight.sum() * (1.0 if torch.equal(self.start, model.weight) else math.nan)
            return Loss(total, total.new_tensor(1.0), {})

    model = nn.Linear(2, 2)
    before = weights(model)
    optimizer = partial(torch.optim.LBFGS, max_iter=3)
    trainer = build_trainer(model, point_dataset(), optimizer=optimizer, task=Cliff(("a", "b"), label_smoothing=0.0))
    with pytest.raises(TrainingError, match="a line search led to weights that are not finite; the weights were not"):
        trainer.fit(Recorder(), None)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    assert not trainer.optimizer.state_dict()["state"]


class Fence(Classification):
    """A parabola around 2 that cannot be solved, or is not a number, further than 0.05 from where the weights are."""

    def __init__(self, beyond):
        super().__init__(("a", "b"), label_smoothing=0.0)
        self.beyond, self.start = beyond, None

    def loss(self, model, batch, progress):
        self.start = model.weight.detach().clone() if self.start is None else self.start
        total = (model.weight - 2).square().sum()
        if (model.weight - self.start).abs().max() > 0.05:
            if self.beyond == "unsolved":
                raise SolveError(Status.STEP_UNDERFLOW, 0.5, 7)
            total = total * math.nan
        return Loss(total, total.new_tensor(1.0), {})


@pytest.mark.parametrize("beyond", ["unsolved", "nan"])
def test_a_line_search_comes_back_from_where_there_is_no_loss(beyond):
    model, fence = nn.Linear(2, 2), Fence(beyond)
    optimizer = partial(torch.optim.LBFGS, max_iter=1, max_eval=20, line_search_fn="strong_wolfe")
    trainer = build_trainer(model, point_dataset(), optimizer=optimizer, task=fence, epochs=1, batch_size=999)
    before = ((model.weight.detach() - 2).square()).sum()
    trainer.fit(Recorder(), None)
    assert 0 < (model.weight - fence.start).abs().max() <= 0.05
    assert (model.weight - 2).square().sum() < before


def test_lbfgs_without_a_search_fails_where_a_solve_does():
    model, fence = nn.Linear(2, 2), Fence("unsolved")
    optimizer = partial(torch.optim.LBFGS, max_iter=3)
    trainer = build_trainer(model, point_dataset(), optimizer=optimizer, task=fence, epochs=1, batch_size=999)
    with pytest.raises(TrainingError, match=r"step 1: the ODE solve failed at t = 0\.5 after 7 evaluations"):
        trainer.fit(Recorder(), None)
    assert torch.equal(model.weight, fence.start)


def test_lbfgs_and_clipped_gradients_are_refused():
    with pytest.raises(
        ValueError, match="clip_norm must be null with LBFGS, whose line search needs the whole gradient"
    ):
        build_trainer(nn.Linear(2, 2), point_dataset(), optimizer=partial(torch.optim.LBFGS), clip_norm=1.0)
