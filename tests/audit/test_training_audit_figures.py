"""What the audit of a run measures, and what it refuses."""

import re

import pytest
import torch
from audited_runs import make_audit
from small_models import make_case
from training.small_runs import build_ode_net, point_dataset

from node_cli.audit.backward_pass import BackwardPass
from node_cli.audit.comparison import difference
from node_cli.loggers.tensorboard import LAYOUT

FIGURES = {"audit/cosine", "audit/relative_error", "audit/pass_relative_error", "audit/reconstruction"}


def make_model(case, **changes):
    return build_ode_net("odenet_mlp", case.solver, case.gradient, num_blocks=2, **changes)


def figures_of(case, **settings):
    return make_audit(make_model(case), **settings)(1, 0.5)


def test_they_are_those_of_the_passes():
    """Against the ODE at `reference_rtol`, against the pass itself, and the worst block of the way back."""
    case = make_case("euler", "adjoint", num_steps=2)
    model, dataset = make_model(case), point_dataset()
    audit = make_audit(model, dataset, seed=3, batch_size=5, reference_rtol=1e-3)
    batch = next(dataset.train_batches(5, seed=3, epoch=0))
    passes = BackwardPass(model, audit.task, batch, "float32")
    made = passes.of(case).parameters
    ode = difference(made, passes.of_the_ode(1e-3)[0].parameters)
    drift = passes.reconstruction(case, num_times=2)
    assert drift["blocks.0"][0] != drift["blocks.1"][0]
    assert audit(7, 1.0) == {
        "audit/cosine": ode.cosine,
        "audit/relative_error": ode.relative_error,
        "audit/pass_relative_error": difference(made, passes.exact(case.solver)[0].parameters).relative_error,
        "audit/reconstruction": max(drift["blocks.0"][0], drift["blocks.1"][0]),
    }


def test_each_has_a_chart_in_tensorboard():
    charts = [chart for category in LAYOUT.values() for chart in category.values()]
    patterns = [pattern for _, tags in charts for pattern in tags]
    assert {tag for tag in figures_of(make_case("euler")) if not any(re.match(p, tag) for p in patterns)} == set()


def test_a_rough_solver_and_an_accurate_one():
    rough = figures_of(make_case("euler", num_steps=1))
    assert rough["audit/relative_error"] > 0.01
    assert rough["audit/reconstruction"] > 0.001
    assert rough["audit/pass_relative_error"] < 1e-5
    fine = figures_of(make_case("dopri5", rtol=1e-6, atol=1e-6), reference_rtol=1e-9)
    assert fine["audit/relative_error"] < 1e-4
    assert fine["audit/reconstruction"] < 1e-4
    assert 1 - fine["audit/cosine"] < 1e-8


def test_an_adjoint_that_is_rough_is_not_exact_for_its_pass():
    assert figures_of(make_case("euler", "adjoint", num_steps=1))["audit/pass_relative_error"] > 0.01


def test_every_epoch_looks_at_the_same_batch():
    """The first of the run, so that a curve shows the weights and not the samples."""
    audit = make_audit(make_model(make_case("euler")))
    assert audit(1, 0.5) == audit(2, 0.5)
    assert audit(1, 0.5) != make_audit(audit.model, seed=1)(1, 0.5)
    assert audit(1, 0.5) != make_audit(audit.model, batch_size=4)(1, 0.5)


def test_a_solver_without_autograd_has_no_exact_pass():
    case = make_case("scipy", "adjoint", method="RK45")
    figures = figures_of(case)
    assert figures.keys() == FIGURES - {"audit/pass_relative_error"}
    assert figures["audit/relative_error"] < 0.1


def test_in_low_precision():
    case = make_case("rk4", num_steps=2)
    full, half = (figures_of(case, precision=precision) for precision in ("float32", "bfloat16"))
    assert full["audit/pass_relative_error"] < 1e-5 < 1e-4 < half["audit/pass_relative_error"] < 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_n_epochs": -1}, "every_n_epochs must be 0 or more, got -1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": -3}, "batch_size must be at least 1, got -3"),
        ({"reference_rtol": 0.0}, "reference_rtol must be between 0 and 1, got 0.0"),
        ({"reference_rtol": 1.0}, "reference_rtol must be between 0 and 1, got 1.0"),
        ({"reference_rtol": -1e-3}, "reference_rtol must be between 0 and 1, got -0.001"),
        ({"reference_rtol": float("nan")}, "reference_rtol must be between 0 and 1, got nan"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError) as refusal:
        make_audit(make_model(make_case("euler")), **settings)
    assert str(refusal.value) == message


def test_a_model_without_an_ode_block_is_refused_where_it_should_be_audited():
    with pytest.raises(ValueError) as refusal:
        make_audit(torch.nn.Linear(2, 2), every_n_epochs=3)
    assert str(refusal.value) == "every_n_epochs must be 0 with a model that has no ODE block, as Linear, got 3"
    assert make_audit(torch.nn.Linear(2, 2), every_n_epochs=0)(1, 0.5) == {}
