import math
import re
from functools import partial

import pytest
import torch
from matplotlib.figure import Figure
from parts import make_part
from small_runs import Recorder, build_ode_net, build_trainer, point_dataset
from torch import nn

from node_cli.ode.solution import SolveError, Status
from node_cli.tasks.classification import Classification
from node_cli.tasks.task import Loss
from node_cli.training.checkpoint import Checkpoints, read_checkpoint
from node_cli.training.evaluation import rank_of
from node_cli.training.trainer import TrainingError


class ScriptedTask(Classification):
    """Validations come out as scripted, and what was evaluated is kept: weights by split, in order."""

    def __init__(self, *accuracies):
        super().__init__(("a", "b"), label_smoothing=0.0)
        self.accuracies = list(accuracies)
        self.evaluated = []

    def predict(self, model, batch, generator):
        self.evaluated.append(weights(model))
        return super().predict(model, batch, generator)

    def metrics(self, batch, rows):
        accuracy = self.accuracies.pop(0) if self.accuracies else 0.0
        return {"loss": 1.0, "accuracy": accuracy, "error": 1 - accuracy}


class WatchedDataset:
    """A dataset that keeps in order which splits were read."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.read = []

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def train_batches(self, *args, **keys):
        self.read.append("train")
        return self.dataset.train_batches(*args, **keys)

    def batches(self, split, batch_size):
        self.read.append(split)
        return self.dataset.batches(split, batch_size)


class RootTask(Classification):
    """A loss of zero whose gradient is infinite."""

    def loss(self, model, batch, progress):
        return Loss((model.weight - model.weight.detach()).sum().sqrt(), torch.tensor(1.0), {})


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one, other):
    """NaN stands for a step size that no block has carried over yet."""
    return all(torch.allclose(one[name], other[name], rtol=0, atol=0, equal_nan=True) for name in one)


def fit(trainer, folder, *, takes_images=False):
    recorder = Recorder(takes_images=takes_images)
    return recorder, trainer.fit(recorder, Checkpoints(folder / "checkpoints", trainer.keep))


def rk4(num_steps):
    return make_part("solver", "rk4", num_steps=num_steps)


def point_net(solver, **changes):
    return build_ode_net("odenet_mlp", solver, make_part("gradient", "direct"), **changes)


def test_the_loss_falls_on_a_small_problem(tmp_path):
    trainer = build_trainer(point_net(rk4(2)), epochs=10)
    recorder, evaluation = fit(trainer, tmp_path)
    losses = [epoch["train/loss"] for epoch in trainer.state.history]
    assert losses[-1] < 0.1 < 0.5 < losses[0]
    assert evaluation.metrics["accuracy"] == recorder.of("test/accuracy")[0] == 1.0


def test_the_figures_of_a_step_and_of_an_epoch(tmp_path):
    trainer = build_trainer(point_net(rk4(2)), epochs=1)
    recorder, _ = fit(trainer, tmp_path)
    assert {tag for step, tag, _ in recorder.scalars if step == 1} == {
        *("train/loss", "train/accuracy", "lr", "nfe/forward", "nfe/backward"),
        *("solver/accepted", "solver/rejected", "solver/step_min", "solver/step_mean", "solver/step_first"),
        *("time/step_ms", "memory/peak_mb"),
    }
    (epoch,) = trainer.state.history
    sizes = [8, 8, 4]
    losses = recorder.of("train/loss")
    assert epoch["train/loss"] == pytest.approx(sum(n * x for n, x in zip(sizes, losses, strict=True)) / 20)
    assert epoch["val/loss"] == recorder.of("val/loss")[0]
    assert (epoch["epoch"], epoch["step"]) == (1, 3)


@pytest.mark.parametrize(
    ("bounds", "steps", "epochs"),
    [
        ({"epochs": 2, "max_steps": None}, 6, 2),
        ({"epochs": None, "max_steps": 4}, 4, 2),
        ({"epochs": 2, "max_steps": 5}, 5, 2),
        ({"epochs": 1, "max_steps": 9}, 3, 1),
    ],
)
def test_epochs_or_steps_end_the_run_whichever_come_first(bounds, steps, epochs, tmp_path):
    trainer = build_trainer(**bounds)
    recorder, _ = fit(trainer, tmp_path)
    assert [step for step, tag, _ in recorder.scalars if tag == "train/loss"] == list(range(1, steps + 1))
    assert len(recorder.of("val/loss")) == epochs
    assert trainer.is_done


def test_records_are_written_at_the_first_step_and_at_every_so_many(tmp_path):
    recorder, _ = fit(build_trainer(epochs=4, log_every_steps=5), tmp_path)
    assert [step for step, tag, _ in recorder.scalars if tag == "lr"] == [1, 5, 10]


def test_every_group_of_parameters_follows_the_schedule_below_its_own_peak(tmp_path):
    def optimizer(parameters):
        weight, bias = parameters
        return torch.optim.SGD([{"params": [weight], "lr": 0.4}, {"params": [bias], "lr": 0.1}])

    trainer = build_trainer(optimizer=optimizer, schedule=lambda done: 1 - done, epochs=None, max_steps=4)
    recorder, _ = fit(trainer, tmp_path)
    assert recorder.of("lr") == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([0.1, 0.025])


def test_the_norm_of_a_clipped_update_is_exact(tmp_path):
    sgd = torch.optim.SGD
    moved = {}
    for clip_norm in (None, 1e-3, 1e3):
        trainer = build_trainer(optimizer=lambda p: sgd(p, lr=1.0), epochs=None, max_steps=1, clip_norm=clip_norm)
        before = weights(trainer.model)
        fit(trainer, tmp_path)
        moved[clip_norm] = torch.cat([(trainer.best_weights[name] - before[name]).flatten() for name in before])
    assert moved[None].norm() > 0.1
    assert torch.equal(moved[1e3], moved[None])
    torch.testing.assert_close(moved[1e-3], moved[None] * 1e-3 / moved[None].norm(), rtol=1e-3, atol=1e-7)


def test_clipping_takes_learned_times_in_float64_with_the_rest(tmp_path):
    trainer = build_trainer(point_net(rk4(2), learn_times=True), clip_norm=0.01, epochs=1)
    times = trainer.model.blocks[0].ts.detach().clone()
    fit(trainer, tmp_path)
    assert trainer.model.blocks[0].ts.dtype == torch.float64
    assert not torch.equal(trainer.model.blocks[0].ts, times)


def test_an_infinite_loss_stops_before_the_update(tmp_path):
    model = point_net(rk4(3))
    with torch.no_grad():
        model.head.bias[0] = math.inf
    trainer = build_trainer(model, optimizer=lambda p: torch.optim.AdamW(p, lr=0.1))
    before = weights(model)
    with pytest.raises(TrainingError) as failure:
        fit(trainer, tmp_path)
    assert str(failure.value) == (
        "step 1: the loss or its gradient is not finite (loss nan, gradient norm nan, NFE 12); the weights were not "
        "changed. Lower optimizer.lr, or clip gradients (trainer.clip_norm=1)"
    )
    assert equal(weights(model), before)
    assert trainer.state.step == 0
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_an_infinite_gradient_of_a_finite_loss_stops_before_the_update(clip_norm, tmp_path):
    trainer = build_trainer(task=RootTask(("a", "b"), label_smoothing=0.0), clip_norm=clip_norm)
    before = weights(trainer.model)
    with pytest.raises(
        TrainingError, match=re.escape("step 1: the loss or its gradient is not finite (loss 0, gradient norm")
    ):
        fit(trainer, tmp_path)
    assert equal(weights(trainer.model), before)


def test_a_failure_in_a_later_step_names_it_and_leaves_the_checkpoint_of_the_last_epoch(tmp_path):
    class SpoilsFifth(Classification):
        calls = 0

        def loss(self, model, batch, progress):
            self.calls += 1
            loss = super().loss(model, batch, progress)
            return loss._replace(total=loss.total * math.nan) if self.calls == 5 else loss

    trainer = build_trainer(task=SpoilsFifth(("a", "b"), label_smoothing=0.0), epochs=5)
    with pytest.raises(TrainingError, match=r"^step 5: the loss or its gradient is not finite"):
        fit(trainer, tmp_path)
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["state"]["step"] == 3


def test_a_failed_solve_names_the_step_and_says_what_to_do(tmp_path):
    solver = make_part("solver", "dopri5", max_nfe=10)
    model = point_net(solver)
    before = weights(model)
    with pytest.raises(
        TrainingError, match=r"^step 1: the ODE solve failed at t = .* reached solver\.max_nfe\. Raise it"
    ):
        fit(build_trainer(model), tmp_path)
    assert equal(weights(model), before)


def test_a_solve_that_fails_in_a_validation_names_the_split(tmp_path):
    class FailsInEvaluation(Classification):
        def predict(self, model, batch, generator):
            model.blocks[0].solver = make_part("solver", "dopri5", max_nfe=3)
            return super().predict(model, batch, generator)

    task = FailsInEvaluation(("a", "b"), label_smoothing=0.0)
    with pytest.raises(TrainingError, match=r"^evaluating the val split after step 3: the ODE solve failed"):
        fit(build_trainer(point_net(rk4(2)), task=task), tmp_path)


def test_patience_counts_epochs_without_a_better_validation(tmp_path):
    task = ScriptedTask(0.5, 0.7, 0.6, 0.7, 0.9, 0.95)
    trainer = build_trainer(task=task, epochs=6, patience=2)
    recorder, _ = fit(trainer, tmp_path)
    assert recorder.of("val/accuracy") == [0.5, 0.7, 0.6, 0.7]  # 0.7 again is no better
    assert trainer.state.best_epoch == 2


def test_without_patience_all_epochs_are_made(tmp_path):
    task = ScriptedTask(0.5, 0.4, 0.3, 0.2, 0.1)
    recorder, _ = fit(build_trainer(task=task, epochs=5), tmp_path)
    assert recorder.of("val/accuracy") == [0.5, 0.4, 0.3, 0.2, 0.1]


def test_best_is_chosen_by_validation_and_its_weights_are_tested(tmp_path):
    task = ScriptedTask(0.5, 0.9, 0.7, 0.1)
    trainer = build_trainer(task=task, epochs=3)
    recorder, evaluation = fit(trainer, tmp_path)
    first, best, last, test = task.evaluated
    assert evaluation.metrics["accuracy"] == recorder.of("test/accuracy")[0] == 0.1
    assert equal(test, best)
    assert not equal(best, first)
    assert not equal(best, last)
    assert equal(read_checkpoint(tmp_path / "checkpoints" / "best.pt")["model"], best)
    assert equal(read_checkpoint(tmp_path / "checkpoints" / "last.pt")["model"], last)
    assert equal(weights(trainer.model), best)


def test_between_equal_accuracies_the_smaller_loss_is_better():
    task = Classification(("a", "b"), label_smoothing=0.0)
    assert rank_of(task, {"error": 0.5, "loss": 1.0}) > rank_of(task, {"error": 0.5, "loss": 2.0})


def test_the_test_split_is_read_only_after_the_last_epoch(tmp_path):
    dataset = WatchedDataset(point_dataset())
    task = ScriptedTask(0.5, 0.9, 0.7, 0.1)
    fit(build_trainer(dataset=dataset, task=task, epochs=3), tmp_path, takes_images=True)
    assert dataset.read == ["train", "val"] * 3 + ["test"]
    assert len(task.evaluated) == 3 + 1


def test_figures_of_the_test_stand_after_the_last_step(tmp_path):
    """Where a run killed before its summary, and resumed, takes them back."""
    recorder, _ = fit(build_trainer(epochs=1), tmp_path, takes_images=True)
    assert {step for step, tag, _ in recorder.scalars if tag.startswith("test/")} == {4}
    assert recorder.tags == ["train/inputs", "test/confusion_matrix", "test/wrong_predictions", "test/plane"]
    assert recorder.images[0] == (0, "train/inputs")


def test_results_of_the_validation_are_drawn_every_few_epochs(tmp_path):
    trainer = build_trainer(epochs=5, figures_every_epochs=2)
    recorder, _ = fit(trainer, tmp_path, takes_images=True)
    steps = trainer.steps_per_epoch
    assert [(step, tag) for step, tag in recorder.images if tag.startswith("val/")] == [
        (n * steps, f"val/{name}") for n in (2, 4) for name in ("confusion_matrix", "wrong_predictions", "plane")
    ]


class DrawsASolve(Classification):
    """A figure for which the model is solved, and random numbers are drawn."""

    fails = False

    def figures(self, model, batch, rows, names=()):
        torch.rand(3)
        model(batch["inputs"])
        if self.fails:
            raise SolveError(Status.TOO_MANY_STEPS, 0.5, 12)
        return {"flow": Figure()}


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_goes_on_as_if_nothing_had_been_drawn(fails, tmp_path, caplog):
    def records(task, folder, **settings):
        folder.mkdir()
        model = nn.Sequential(point_net(rk4(2)), nn.Dropout(0.5))
        torch.manual_seed(0)
        recorder, _ = fit(build_trainer(model, task=task, **settings), folder, takes_images=True)
        return recorder, [record for record in recorder.scalars if record[1] not in ("time/step_ms", "memory/peak_mb")]

    task = DrawsASolve(("a", "b"), label_smoothing=0.0)
    task.fails = fails
    drawn, own = records(task, tmp_path / "drawn", figures_every_epochs=1)
    _, plain = records(Classification(("a", "b"), label_smoothing=0.0), tmp_path / "plain")
    assert own == plain
    assert drawn.tags == ["train/inputs", *([] if fails else ["val/flow", "val/flow", "test/flow"])]
    assert ("no figures of the val split at step 3: the ODE solve failed" in caplog.text) == fails


def test_no_picture_is_drawn_for_nobody(tmp_path):
    dataset = WatchedDataset(point_dataset())
    recorder, _ = fit(build_trainer(dataset=dataset, epochs=1, figures_every_epochs=1), tmp_path)
    assert dataset.read == ["train", "val", "test"]
    assert recorder.tags == []


def test_evaluations_of_a_validation_do_not_count_as_training(tmp_path):
    class EulerInEvaluation(Classification):
        def predict(self, model, batch, generator):
            solver, model.blocks[0].solver = model.blocks[0].solver, make_part("solver", "euler", num_steps=1)
            rows = super().predict(model, batch, generator)
            model.blocks[0].solver = solver
            return rows

    task = EulerInEvaluation(("a", "b"), label_smoothing=0.0)
    trainer = build_trainer(point_net(rk4(3)), task=task, epochs=2)
    recorder, _ = fit(trainer, tmp_path)
    assert recorder.of("nfe/forward") == [12] * 6
    assert recorder.of("nfe/val") == [1, 1]
    assert recorder.of("nfe/test") == [1]
    assert [epoch["nfe/forward"] for epoch in trainer.state.history] == [12, 12]


def test_two_blocks_are_recorded_apart(tmp_path):
    model = point_net(rk4(3), num_blocks=2)
    model.blocks[1].solver = rk4(1)
    recorder, _ = fit(build_trainer(model, epochs=1), tmp_path)
    assert recorder.of("nfe/forward/blocks.0") == [12] * 3
    assert recorder.of("nfe/forward/blocks.1") == [4] * 3
    assert recorder.of("nfe/forward") == [16] * 3


def test_histograms_every_so_many_epochs(tmp_path):
    trainer = build_trainer(point_net(rk4(3)), epochs=3, histograms_every_epochs=2)
    recorder, _ = fit(trainer, tmp_path)
    names = [f"weights/{name}" for name, _ in trainer.model.named_parameters()]
    assert recorder.tags == [*names, "solver/step_size"]


class Counts(Recorder):
    """Keeps how many step sizes each histogram is made of."""

    def __init__(self):
        super().__init__()
        self.counts = []

    def log_histogram(self, step, tag, values):
        if tag.startswith("solver/step_size"):
            self.counts.append((tag, len(values)))


def test_step_sizes_are_those_of_one_epoch(tmp_path):
    trainer = build_trainer(point_net(rk4(3)), epochs=2, histograms_every_epochs=1)
    counts = Counts()
    trainer.fit(counts, Checkpoints(tmp_path, keep=2))
    assert counts.counts == [("solver/step_size", 9)] * 2  # three updates of three steps each


def test_step_sizes_of_two_blocks_are_shown_together_and_apart(tmp_path):
    model = point_net(rk4(3), num_blocks=2)
    model.blocks[1].solver = rk4(1)
    counts = Counts()
    build_trainer(model, epochs=1, histograms_every_epochs=1).fit(counts, Checkpoints(tmp_path, keep=2))
    tags = {"solver/step_size": 12, "solver/step_size/blocks.0": 9, "solver/step_size/blocks.1": 3}
    assert dict(counts.counts) == tags


def test_the_end_of_an_epoch_is_saved_once_with_its_validation(tmp_path):
    """Saved before the validation too, a run killed in between would record that validation twice."""
    saved = []

    class Watched(Checkpoints):
        def save(self, payload, step, *, is_best):
            saved.append((step, payload["state"]["batch"], len(payload["state"]["history"])))
            super().save(payload, step, is_best=is_best)

    build_trainer(epochs=2, save_every_steps=1).fit(Recorder(), Watched(tmp_path, keep=2))
    assert saved == [(1, 1, 0), (2, 2, 0), (3, 0, 1), (4, 1, 1), (5, 2, 1), (6, 0, 2)]


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_holds_for_training_and_evaluation(precision, dtype, tmp_path):
    model = nn.Linear(2, 2)
    dtypes = []
    model.register_forward_hook(lambda _module, _args, output: dtypes.append(output.dtype))
    trainer = build_trainer(model, precision=precision, epochs=1)
    fit(trainer, tmp_path)
    assert dtypes == [dtype] * 5  # three updates, validation, test


def test_the_model_is_told_when_it_is_trained_and_when_evaluated(tmp_path):
    modes = []

    class Modes(Classification):
        def loss(self, model, batch, progress):
            modes.append(model.training)
            return super().loss(model, batch, progress)

        def predict(self, model, batch, generator):
            modes.append(model.training)
            return super().predict(model, batch, generator)

    fit(build_trainer(task=Modes(("a", "b"), label_smoothing=0.0), epochs=2), tmp_path)
    assert modes == [True, True, True, False] * 2 + [False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": None, "max_steps": None}, "epochs and max_steps are both null: set one of them"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"eval_batch_size": -1}, "eval_batch_size must be at least 1, got -1"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"log_every_steps": 0}, "log_every_steps must be at least 1, got 0"),
        ({"save_every_steps": 0}, "save_every_steps must be at least 1, got 0"),
        ({"keep": 1}, "keep must be at least 2, so that one is left if the newest is damaged, got 1"),
        ({"devices": 0}, "devices must be at least 1, got 0"),
        ({"max_restarts": -1}, "max_restarts must be 0 or more, got -1"),
        ({"max_seconds": 0.0}, "max_seconds must be positive or null, got 0.0"),
        ({"spike_factor": 1.0}, "spike_factor must be more than 1 or null, got 1.0"),
        ({"average_decay": 1.0}, "average_decay must be between 0 and 1 or null, got 1.0"),
        ({"on_bad_step": "retry"}, "on_bad_step must be one of raise, skip_batch, got retry"),
        ({"clip_norm": 0.0}, "clip_norm must be positive or null, got 0.0"),
        ({"clip_norm": math.nan}, "clip_norm must be positive or null, got nan"),
        ({"max_skipped": -1}, "max_skipped must be 0 or more, got -1"),
        ({"figures_every_epochs": -1}, "figures_every_epochs must be 0 or more, got -1"),
        ({"histograms_every_epochs": -1}, "histograms_every_epochs must be 0 or more, got -1"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build_trainer(nn.Linear(2, 2), **settings)


class TwoPhases(Classification):
    """The second kind of loss begins in the middle of the run."""

    def phase(self, progress):
        return "first" if progress < 0.5 else "second"


@pytest.mark.parametrize(
    ("optimizer", "count", "is_kept"),
    [
        (partial(torch.optim.Adam, lr=0.01), "step", False),
        (partial(torch.optim.LBFGS, max_iter=1), "n_iter", True),  # what it knows of curvature is of use
    ],
    ids=["adam", "lbfgs"],
)
def test_where_the_loss_becomes_another_running_means_start_anew(optimizer, count, is_kept):
    task = TwoPhases(("a", "b"), label_smoothing=0.0)
    settings = {"max_steps": 10, "epochs": None, "batch_size": 4}
    trainer = build_trainer(dataset=point_dataset(), task=task, optimizer=optimizer, **settings)
    trainer.fit(Recorder(), None)
    counts = [int(state[count]) for state in trainer.optimizer.state.values()]
    assert [number > 5 for number in counts] == [is_kept] * len(counts) != []
