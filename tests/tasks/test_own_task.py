"""A model that asks its block for the states at many times, a task of one's own: counted, audited, compared."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from audit.small_models import make_case
from parts import make_gradient, make_solver
from torch import nn
from training.small_runs import build_trainer, point_dataset

from node_cli.audit.model import ModelAudit
from node_cli.audit.solver_comparison import SolverComparison
from node_cli.audit.training import TrainingAudit
from node_cli.datasets.base import Dataset
from node_cli.models.ode_block import OdeBlock
from node_cli.tasks.base import Evaluation

TIMES = torch.tensor([0.0, 0.1, 0.45, 0.5, 1.5], dtype=torch.float64)
AUDIT = {"seed": 0, "precision": "float32", "batch_size": 8, "reference_rtol": 1e-6}


class Trajectories(nn.Module):
    def __init__(self, solver, turn_in=torch.float32):
        super().__init__()
        self.field = nn.Linear(2, 2)
        self.field.weight.data.mul_(3)
        self.turn = torch.eye(2, dtype=turn_in)  # no buffer: it stays as it is
        self.block = OdeBlock(lambda t, y: y, solver, make_gradient("checkpoint"), t0=0.0, t1=1.0, learn_times=False)
        self.block.vector_field = SimpleField(self.field)

    def forward(self, y0):
        return self.block.solve(y0, TIMES).ys.transpose(0, 1)


class SimpleField(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, t, y):
        return torch.tanh(self.net(y))


class Turned(Trajectories):
    def forward(self, y0):
        return super().forward(y0 @ self.turn)


class Regression:
    """The mean square of all states, of batches that `pack` makes another kind of."""

    metric_names = ("loss",)

    def __init__(self, pack=lambda batch: batch):
        self.pack = pack

    def loss(self, model, batch):
        loss = (model(batch.inputs) - 3).square().mean()
        return loss, {"rmse": loss.detach().sqrt()}

    def evaluate(self, model, batches, *, skip_failed):
        outputs = torch.cat([model(batch.inputs) for batch in batches])
        loss = (outputs - 3).square().mean().item()
        return Evaluation({"loss": loss} | ({"failed": 0} if skip_failed else {}), outputs)

    def rank(self, metrics):
        return (-metrics["loss"],)

    def agreement(self, one, other):
        return float(nn.functional.cosine_similarity(one.outputs.flatten(), other.outputs.flatten(), 0))


class OfDicts(Regression):
    def loss(self, model, batch):
        return super().loss(model, SimpleNamespace(**batch))


class DictBatches(Dataset):
    def train_batches(self, *args, **keys):
        return ({"inputs": batch.inputs, "targets": batch.targets} for batch in super().train_batches(*args, **keys))


class OpaqueBatches(Dataset):
    def train_batches(self, *args, **keys):
        return (SimpleNamespace(**batch._asdict()) for batch in super().train_batches(*args, **keys))


def model(solver="rk4", kind=Trajectories, **keys):
    torch.manual_seed(0)
    return kind(make_solver(solver, **keys))


def audit(kind, net, task, dataset, **keys):
    return kind(model=net, task=task, dataset=dataset, **AUDIT, **keys)


def test_training_and_evaluation_count_its_evaluations():
    trainer = build_trainer(model("rk4", num_steps=3), task=Regression(), batch_size=10, average_decay=0.9)
    figures = []
    logger = SimpleNamespace(
        log_scalars=lambda step, values: figures.append(values), flush=lambda: None, takes_images=False
    )
    trainer.fit(logger, None)
    expected = 4 * 3 * (len(TIMES) - 1)
    for tag in ("nfe/forward", "nfe/val", "nfe/test"):
        assert {values[tag] for values in figures if tag in values} == {expected}


def test_its_solves_are_compared_and_solved_back():
    comparison = SolverComparison(model("euler", num_steps=1), Regression(), point_dataset(), "val", 3, "float32")
    own = comparison.judge("own")
    finer = comparison.judge("finer", make_solver("rk4", num_steps=8))
    assert (own.nfe, finer.nfe) == (4, 4 * 4 * 8)
    assert 0 < finer.reconstruction < 1e-4 < own.reconstruction < 1
    assert comparison.verdict().startswith(
        "The network is no ODE any more: its result moves with a finer solver, from -"
    )
    assert "agreement of the predictions 0.9" in comparison.verdict()
    again = comparison.judge("coarser", make_solver("euler", num_steps=1))
    assert again.nfe == own.nfe
    assert "makes no more evaluations than the run's own solver" in comparison.verdict()


def test_a_block_that_solves_nothing_says_so():
    class Idle(Trajectories):
        def forward(self, y0):
            return self.field(y0)

    comparison = SolverComparison(model(kind=Idle), Regression(), point_dataset(), "val", 8, "float32")
    comparison.judge("own")
    comparison.judge("finer", make_solver("dopri5"))
    assert (
        comparison.verdict() == "The ODE blocks of this model solved nothing: another solver has no part in its result."
    )


@pytest.mark.parametrize(("task", "batches"), [(Regression, Dataset), (OfDicts, DictBatches)])
def test_it_is_audited_whatever_its_batches_are(task, batches):
    dataset = batches(**vars(point_dataset()))
    cases = [make_case("rk4", num_steps=2), make_case("dopri5", "adjoint", rtol=1e-4, atol=1e-4)]
    keys = {"rtols": [], "accepted_error": 0.05, "num_times": 3}
    report = audit(ModelAudit, model(), task(), dataset, **keys).audit(cases, lambda what: None)
    rk4, adjoint = report.details["cases"]
    assert rk4["nfe_forward"] == 4 * 2 * (len(TIMES) - 1)
    assert rk4["against_pass"]["relative_error"] < 1e-5
    assert adjoint["against_ode"]["relative_error"] < 1e-2
    assert [len(row["drift"]["block"]) for row in (rk4, adjoint)] == [2, 3]
    assert rk4["times"] == {}  # its own are not solved at
    assert "a batch of 8 in float32" in report.details["model"]
    figures = audit(TrainingAudit, model(), task(), dataset, every_n_epochs=1)(1)
    assert all(math.isfinite(value) for value in figures.values())
    assert 0 < figures["audit/reconstruction"] < 1


@pytest.mark.parametrize(
    ("kind", "batches", "message"),
    [
        (
            Trajectories,
            OpaqueBatches,
            "an audit needs batches that are tuples or dicts of tensors, these are of type Simp",
        ),
        (
            Turned,
            Dataset,
            "an audit evaluates Turned in float64, which fails (expected m1 and m2 to have the same dtype",
        ),
    ],
)
def test_what_cannot_be_audited_is_refused_before_anything_is_trained(kind, batches, message):
    dataset = batches(**vars(point_dataset()))
    for audited, keys in (
        (ModelAudit, {"rtols": [], "accepted_error": 0.1, "num_times": 2}),
        (TrainingAudit, {"every_n_epochs": 1}),
    ):
        with pytest.raises(ValueError) as error:
            audit(audited, model(kind=kind), Regression(), dataset, **keys)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)
