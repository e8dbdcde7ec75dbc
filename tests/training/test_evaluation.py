"""The one loop over the batches of a split."""

import math

import pytest
import torch
from parts import make_gradient
from torch import nn
from touchy import Touchy

from node_cli.batch import independent_generator
from node_cli.datasets.dataset import Dataset
from node_cli.models.ode_block import OdeBlock
from node_cli.ode.solution import SolveError
from node_cli.tasks.task import Loss, Task, solved
from node_cli.training.evaluation import evaluate, predictions, rank_of

FAR = 9.0  # beyond the limit of `Touchy`


class Numbers(Task):
    """Rows of several kinds; keeps how many samples each call had."""

    metric_names = ("mean",)
    objective = ("mean", "max")

    def __init__(self):
        self.sizes = []

    def loss(self, model, batch, progress):
        total = model(batch["x"]).sum()
        return Loss(total, total.new_tensor(len(batch["x"])), {})

    def predict(self, model, batch, generator):
        self.sizes.append(len(batch["x"]))
        y = model(batch["x"])
        return {"y": y, "whole": y.round().long(), "is_low": y < 0, "drawn": torch.rand(len(y), generator=generator)}

    def metrics(self, batch, rows):
        batch, rows = solved(batch, rows)
        assert len(batch["x"]) == len(rows["y"])
        return {"mean": rows["y"].mean().item()}


def model_of(on_failure):
    field = nn.Linear(1, 1)
    nn.init.zeros_(field.weight)
    nn.init.zeros_(field.bias)
    gradient = make_gradient("direct")
    return OdeBlock(Still(field), Touchy(on_failure=on_failure), gradient, t0=0.0, t1=1.0, learn_times=False)


class Still(nn.Module):
    """A vector field that moves nothing."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, t, y):
        return self.net(y)


def run(x, batch_size=100, on_failure="skip_batch"):
    task, dataset = Numbers(), Dataset({"val": {"x": torch.tensor(x)[:, None]}})
    return task, evaluate(model_of(on_failure), task, dataset, "val", batch_size, "float32")


def test_a_batch_is_split_in_halves_until_the_failing_samples_stand_alone():
    task, evaluation = run([0.0, 1.0, 2.0, FAR, 4.0])
    assert task.sizes == [5, 3, 2, 1, 1]
    assert evaluation.rows["failed"].tolist() == [False, False, False, True, False]
    assert evaluation.metrics == {"mean": pytest.approx(7 / 4), "failed": 1}
    y, whole, is_low = (evaluation.rows[name].flatten().tolist() for name in ("y", "whole", "is_low"))
    assert (y[2:3], whole[2:], is_low) == ([2.0], [2, -1, 4], [False] * 5)
    assert math.isnan(y[3])


def test_batches_that_fail_before_a_first_sample_is_solved_are_marked_too():
    _, evaluation = run([FAR, FAR, FAR, 1.0, FAR], 2)
    assert evaluation.rows["failed"].tolist() == [True, True, True, False, True]
    assert evaluation.rows["whole"].flatten().tolist() == [-1, -1, -1, 1, -1]
    assert evaluation.metrics == {"mean": 1.0, "failed": 4}


def test_nothing_failed_is_said_too_where_it_could_have():
    _, could = run([1.0, 2.0, 3.0], 2)
    _, could_not = run([1.0, 2.0, 3.0], on_failure="raise")
    assert could.metrics == could_not.metrics | {"failed": 0}
    assert torch.equal(could.rows["y"], could_not.rows["y"])
    assert "failed" not in could_not.rows


@pytest.mark.parametrize(
    ("x", "on_failure", "detail"),
    [([1.0, FAR], "raise", ""), ([FAR, FAR, FAR], "skip_batch", "and so for each of the 3 samples alone; ")],
)
def test_a_failure_that_cannot_be_skipped_is_raised(x, on_failure, detail):
    expected = f"the ODE solve failed at t = 0 after 7 evaluations: {detail}the step size underflowed"
    with pytest.raises(SolveError, match=f"^{expected}"):
        run(x, on_failure=on_failure)


def test_random_numbers_of_a_batch_depend_on_its_number_alone():
    _, once = run([1.0, 2.0, 3.0, 4.0], 2)
    torch.rand(3)
    _, again = run([1.0, 2.0, 3.0, 4.0], 2)
    assert torch.equal(once.rows["drawn"], again.rows["drawn"])
    assert len(set(once.rows["drawn"].tolist())) == 4


def test_metrics_are_those_that_the_task_names():
    task, dataset = Numbers(), Dataset({"val": {"x": torch.ones(2, 1)}})
    task.metric_names = ("mean", "median")
    with pytest.raises(ValueError, match=r"^Numbers\.metrics must give mean, median, got mean$"):
        evaluate(model_of("raise"), task, dataset, "val", 2, "float32")


def test_rows_are_streamed_a_batch_at_a_time():
    read = []

    def batches():
        for number in range(3):
            read.append(number)
            yield {"x": torch.tensor([[float(number)]])}

    rows = predictions(model_of("raise"), Numbers(), batches(), "float32")
    assert next(rows)["y"].item() == 0.0
    assert read == [0]


@pytest.mark.parametrize(
    ("objective", "better", "worse"),
    [
        (("mean", "max"), {"mean": 2.0}, {"mean": 1.0}),
        (("mean", "min"), {"mean": 1.0}, {"mean": 2.0}),
        (("mean", "max"), {"mean": 2.0, "loss": 1.0}, {"mean": 2.0, "loss": 1.5}),
        (("loss", "min"), {"mean": 1.0, "loss": 1.0}, {"mean": 2.0, "loss": 1.5}),
    ],
)
def test_validations_are_compared_by_the_objective_and_between_equals_by_the_loss(objective, better, worse):
    task = Numbers()
    task.objective = objective
    assert rank_of(task, better) > rank_of(task, worse)


def test_processes_and_batches_draw_numbers_that_have_nothing_in_common():
    streams = [(rank, number) for rank in range(3) for number in range(3)]
    drawn = {tuple(torch.rand(2, generator=independent_generator(*stream)).tolist()) for stream in streams}
    assert len(drawn) == len(streams)
