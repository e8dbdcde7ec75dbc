"""A model that asks its block for the states at many times, a task of one's own: counted, audited, compared."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from parts import make_gradient, make_solver
from small_models import make_case
from torch import nn
from training.small_runs import build_trainer, point_dataset

from node_cli.audit.finer import is_finer
from node_cli.audit.model import ModelAudit
from node_cli.audit.solver_comparison import SolverComparison, agreement
from node_cli.audit.training import TrainingAudit
from node_cli.models.ode_block import OdeBlock
from node_cli.tasks.task import Loss, Task

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


class Regression(Task):
    """The mean square of all states, of which there are several a sample."""

    metric_names = ("loss", "rmse")
    objective = ("rmse", "min")

    def loss(self, model, batch, progress):
        squares = (model(batch["inputs"]) - 3).square()
        return Loss(squares.sum(), squares.new_tensor(squares.numel()), {"mse": squares.detach().sum()})

    def predict(self, model, batch, generator):
        return {"state": model(batch["inputs"])}

    def metrics(self, batch, rows):
        loss = (rows["state"] - 3).square().mean().item()
        return {"loss": loss, "rmse": math.sqrt(loss)}


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
    own = comparison.evaluate("own")
    finer = comparison.evaluate("finer", make_solver("rk4", num_steps=8))
    assert (own.nfe, finer.nfe) == (4, 4 * 4 * 8)
    assert 0 < finer.reconstruction < 1e-4 < own.reconstruction < 1
    was, now = (result.evaluation.metrics["rmse"] for result in (own, finer))
    change = f"relative change {abs(now - was) / was:.2g}, limit 0.01"
    moved = f"rmse from {was:.4g} to {now:.4g} ({change}), agreement of the predictions {finer.agreement:.4f}"
    assert f"The result holds under a finer solver, {moved}: so far" in comparison.verdict()
    assert 0.5 < finer.agreement < own.agreement == 1
    again = comparison.evaluate("coarser", make_solver("euler", num_steps=1))
    assert again.nfe == own.nfe
    assert "makes no more evaluations than the run's own solver" in comparison.verdict()


def test_a_verdict_needs_a_finer_solver():
    comparison = SolverComparison(model("dopri5"), Regression(), point_dataset(), "val", 8, "float32")
    comparison.evaluate("dopri5, its own")
    comparison.evaluate("many steps", make_solver("rk4", num_steps=40))
    assert comparison.verdict().startswith(
        "many steps is another solver, not a finer one: whether the network is still an ODE is open (rmse from "
    )
    assert (
        "Finer than dopri5 is its method, or one of higher order, with tolerances of at most a" in comparison.verdict()
    )
    comparison.evaluate("finer", make_solver("dopri5", rtol=1e-5, atol=1e-5))
    assert comparison.verdict().startswith("The result holds under a finer solver, rmse from ")


@pytest.mark.parametrize(
    ("fractions", "was", "now", "change", "verdict"),
    [
        ((), 0.0250, 0.0306, "relative change 0.22", "The network is no ODE any more: "),
        ((), 0.02500, 0.02502, "relative change 0.0008", "The result holds under a finer solver, "),
        ((), -3.0, -2.9, "relative change 0.033", "The network is no ODE any more: "),
        ((), 0.0, 0.0, "relative change 0", "The result holds under a finer solver, "),
        ((), 0.0, 1e-9, "relative change inf", "The network is no ODE any more: "),
        (("rmse",), 0.0250, 0.0306, "change 0.0056", "The result holds under a finer solver, "),
        (("rmse",), 0.0250, 0.0363, "change 0.011", "The network is no ODE any more: "),
        ((), 1.0, math.nan, "relative change nan", "The network is no ODE any more: "),
    ],
)
def test_a_loss_may_move_by_a_hundredth_of_itself_and_a_fraction_by_a_hundredth(fractions, was, now, change, verdict):
    task = Regression()
    task.differences = fractions
    results = iter([was, now])
    task.metrics = lambda batch, rows: {"loss": 1.0, "rmse": next(results)}
    comparison = SolverComparison(model(num_steps=1), task, point_dataset(), "val", 8, "float32")
    comparison.evaluate("own")
    comparison.evaluate("finer", make_solver("rk4", num_steps=2))
    assert comparison.verdict().startswith(verdict)
    assert f"rmse from {was:.4g} to {now:.4g} ({change}, limit 0.01), " in comparison.verdict()


@pytest.mark.parametrize(
    ("other", "own", "expected"),
    [
        (("dopri5", 1e-4, 1e-4), ("dopri5", 1e-3, 1e-3), True),
        (("dopri8", 1e-4, 1e-5), ("dopri5", 1e-3, 1e-3), True),
        (("dopri5", 2e-4, 1e-4), ("dopri5", 1e-3, 1e-3), False),
        (("dopri5", 1e-5, 1e-3), ("dopri5", 1e-3, 1e-3), False),
        (("dopri5", 1e-5, [1e-4, 1e-3]), ("dopri5", 1e-3, [1e-3, 1e-2]), True),
        (("dopri5", 1e-5, [1e-4, 1e-2]), ("dopri5", 1e-3, 1e-3), False),
        (("bosh3", 1e-6, 1e-6), ("dopri5", 1e-3, 1e-3), False),
        (("dopri5", 1e-6, 1e-6), ("rk4", 4), False),
        (("rk4", 40), ("dopri5", 1e-3, 1e-3), False),
        (("rk4", 8), ("rk4", 4), True),
        (("rk4", 40), ("euler", 1), True),
        (("rk4", 7), ("rk4", 4), False),
        (("euler", 40), ("rk4", 4), False),
        (("rk4", None, 0.05), ("rk4", None, 0.1), True),
        (("rk4", None, 0.06), ("rk4", None, 0.1), False),
        (("rk4", 8), ("rk4", None, 0.1), False),
    ],
)
def test_a_finer_solver_is_one_of_far_smaller_tolerances_or_steps(other, own, expected):
    def solver(name, *settings):
        names = ("num_steps", "step_size") if name in ("rk4", "euler") else ("rtol", "atol")
        return make_solver(name, **dict(zip(names, settings, strict=False)))

    assert is_finer(solver(*other), solver(*own)) is expected


def test_solvers_of_other_packages_are_finer_than_those_of_the_same_method():
    own = make_solver("scipy", method="RK45", rtol=1e-3, atol=1e-3)
    assert is_finer(make_solver("scipy", method="RK45", rtol=1e-4, atol=1e-4), own)
    assert not is_finer(make_solver("scipy", method="DOP853", rtol=1e-6, atol=1e-6), own)
    assert not is_finer(make_solver("dopri5", rtol=1e-6, atol=1e-6), own)


def test_a_block_that_solves_nothing_says_so():
    class Idle(Trajectories):
        def forward(self, y0):
            return self.field(y0)

    comparison = SolverComparison(model(kind=Idle), Regression(), point_dataset(), "val", 8, "float32")
    comparison.evaluate("own")
    comparison.evaluate("finer", make_solver("dopri5"))
    assert (
        comparison.verdict() == "The ODE blocks of this model solved nothing: another solver has no part in its result."
    )


def test_it_is_audited():
    dataset = point_dataset()
    cases = [make_case("rk4", num_steps=2), make_case("dopri5", "adjoint", rtol=1e-4, atol=1e-4)]
    keys = {"rtols": [], "accepted_error": 0.05, "num_times": 3}
    report = audit(ModelAudit, model(), Regression(), dataset, **keys).audit(cases, lambda what: None)
    rk4, adjoint = report.details["cases"]
    assert rk4["nfe_forward"] == 4 * 2 * (len(TIMES) - 1)
    assert rk4["against_pass"]["relative_error"] < 1e-5
    assert adjoint["against_ode"]["relative_error"] < 1e-2
    assert [len(row["reconstruction"]["block"]) for row in (rk4, adjoint)] == [2, 3]
    assert rk4["times"] == {}  # its own are not solved at
    assert "a batch of 8 in float32" in report.details["model"]
    figures = audit(TrainingAudit, model(), Regression(), dataset, every_n_epochs=1)(1, 0.5)
    assert all(math.isfinite(value) for value in figures.values())
    assert 0 < figures["audit/reconstruction"] < 1


def test_what_cannot_be_audited_is_refused_before_anything_is_trained():
    for audited, keys in (
        (ModelAudit, {"rtols": [], "accepted_error": 0.1, "num_times": 2}),
        (TrainingAudit, {"every_n_epochs": 1}),
    ):
        with pytest.raises(ValueError) as error:
            audit(audited, model(kind=Turned), Regression(), point_dataset(), **keys)
        assert str(error.value).startswith(
            "an audit evaluates Turned in float64, which fails (expected m1 and m2 to have the same dtype"
        )
        assert "\n" not in str(error.value)


def test_agreement_of_numbers_and_of_classes():
    one = {"state": torch.tensor([[3.0, 4.0], [0.0, 0.0]])}
    other = {"state": torch.tensor([[3.0, 4.0], [0.0, 1.0]])}
    assert agreement(one, one) == 1.0
    assert agreement(one, other) == pytest.approx(1 - 1 / 5)
    assert agreement(one, {"state": one["state"] + 9}) == 0.0
    unknown = torch.tensor([[math.nan], [1.0]])
    rows = one | {"time": torch.tensor([1900.0, 1901.0]), "one_step": unknown}
    assert agreement(rows, rows) == 1.0
    assert agreement(rows, rows | other) == pytest.approx(1 - 1 / 5), "large times outweigh no state"
    assert agreement(rows, rows | {"one_step": unknown.nan_to_num(2.0)}) == 0.0
    failed = {"failed": torch.tensor([False, True])}
    assert agreement(one, {"state": torch.tensor([[3.0, 4.0], [math.nan, math.nan]])} | failed) == 0.5
    classes = [{"class": torch.tensor(numbers), "logit": torch.rand(4)} for numbers in ([0, 1, 2, 2], [0, 1, 1, 2])]
    assert agreement(*classes) == 0.75
    assert agreement(classes[0], classes[0] | {"failed": torch.tensor([False, False, True, True])}) == 0.5
