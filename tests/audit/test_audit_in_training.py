"""A run that is audited between its epochs is, to the last bit, the run that is not."""

import json

import pytest
import torch
from audited_runs import STEPS_PER_EPOCH, fine_case, make_run, run
from touchy import Touchy
from training.small_runs import point_dataset

from node_cli.audit.base import Case
from node_cli.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
def test_nothing_else_changes(gradient, tmp_path):
    """Weights, losses, costs of solves, random numbers: at the end, and in every checkpoint on the way."""
    case = fine_case(gradient)
    records, states, none = run(make_run(case, 0, save_every_steps=1), tmp_path / "plain")
    assert none == []
    assert run(make_run(case, 1, save_every_steps=1), tmp_path / "audited")[:2] == (records, states)
    assert len(states) == 2 * STEPS_PER_EPOCH
    assert {"train/loss", "val/loss", "nfe/forward", "solver/step_first", "test/loss"} <= {tag for _, tag, _ in records}


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_nor_of_a_run_that_was_killed_and_goes_on_in_another_process(gradient, tmp_path):
    """In the middle of an epoch, between two, and after the first audit."""
    case = fine_case(gradient)
    records, states, _ = run(make_run(case, 0, save_every_steps=1), tmp_path / "plain")
    _, _, audits = run(make_run(case, 1, save_every_steps=1), tmp_path / "audited")
    for step in (2, 3, 4):
        late = make_run(case, 1, save_every_steps=1)
        torch.rand(3)  # a new process has another random state
        late.load_state_dict(read_checkpoint(tmp_path / "audited" / f"step-{step:08d}.pt"))
        late_records, late_states, late_audits = run(late, tmp_path / f"late{step}")
        assert late_records == [record for record in records if record[0] > step]
        assert late_states == {at: state for at, state in states.items() if at > step}
        assert late_audits == [record for record in audits if record[0] > step]


@pytest.mark.parametrize(("every_n_epochs", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), (5, [5]), (6, [])])
def test_figures_appear_in_their_turn(every_n_epochs, epochs, tmp_path):
    trainer = make_run(fine_case(), every_n_epochs, epochs=5)
    _, _, audits = run(trainer, tmp_path)
    assert sorted({step for step, _, _ in audits}) == [STEPS_PER_EPOCH * epoch for epoch in epochs]
    tags = {"audit/cosine", "audit/relative_error", "audit/pass_relative_error", "audit/reconstruction"}
    assert len(audits) == len(tags) * len(epochs)
    assert {tag for _, tag, _ in audits} == (tags if epochs else set())
    history = read_checkpoint(tmp_path / "last.pt")["state"]["history"]
    assert [figures["epoch"] for figures in history if "audit/cosine" in figures] == epochs


def test_a_solve_that_fails_is_logged_and_the_run_goes_on(tmp_path, caplog):
    """The batch with one sample is passed by in training; the audit looks at all samples."""
    dataset = point_dataset()
    dataset.splits["train"]["inputs"][9] = 9.0
    touchy = Case("touchy", "direct", Touchy(on_failure="skip_batch"), fine_case().gradient, rtol=None)
    records, states, _ = run(make_run(touchy, 0, dataset), tmp_path / "plain")
    caplog.clear()
    audited = run(make_run(touchy, 1, dataset, {"batch_size": 20}), tmp_path / "audited")
    assert audited == (records, states, [])
    failures = [message for message in caplog.messages if "no audit" in message]
    assert [message.partition(": no audit: ")[0] for message in failures] == ["epoch 1", "epoch 2"]
    assert all(": no audit: the ODE solve failed at t = 0 after 7 evaluations: " in message for message in failures)


QUICK = ("dataset=moons", "model=odenet_mlp", "model.width=4", "solver=euler", "trainer.epochs=2", "logger=jsonl")


def epochs_audited(folder):
    """The figures of each epoch that has them."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tags = ("audit/cosine", "audit/relative_error", "audit/reconstruction")
    return {line["epoch"]: [line[tag] for tag in tags] for line in lines if tags[0] in line}


def test_by_the_command(command, tmp_path):
    """A run that goes on may be audited otherwise than before."""
    status, said = command("node-train", *QUICK, "audit.every_n_epochs=1", "audit.batch_size=16", "run_dir=run")
    assert status == 0, said
    figures = epochs_audited(tmp_path / "run")
    assert figures.keys() == {1, 2}
    for cosine, relative_error, reconstruction in figures.values():
        assert 0 < 1 - cosine < relative_error < 1
        assert 0 < reconstruction < 1
    more = ("trainer.epochs=4", "audit.every_n_epochs=4", "audit.batch_size=8", "audit.reference_rtol=1e-5")
    status, said = command("node-train", "resume=run", *more)
    assert status == 0, said
    assert epochs_audited(tmp_path / "run").keys() == {1, 2, 4}


def test_by_the_command_for_a_model_without_an_ode(command, tmp_path):
    status, said = command("node-train", "model=mlp", "audit.every_n_epochs=1", "run_dir=run")
    assert status == 2
    reason = "must be 0 with a model that has no ODE block, as Mlp, got 1"
    assert said == f"node-train: audit.every_n_epochs {reason}\n"
    assert not (tmp_path / "run").exists()
