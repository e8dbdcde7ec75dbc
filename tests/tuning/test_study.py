"""Studies in this process: what is drawn, taken up again, pruned, and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_studies import RATES, summary

from node_cli.analysis.report.formats import Table
from node_cli.analysis.report.notes import notes
from node_cli.analysis.report.runs import read_runs
from node_cli.cli.tune_worker import work
from node_cli.tuning.plots import pictures
from node_cli.tuning.results import best_trials, table
from node_cli.tuning.search_space import identity

CELLS = {"optimizer.lr": [1e-3, 1e-2], "trainer.batch_size": [128, 256]}
STUDY = Path("outputs/studies/small")


def states(shared):
    return [trial.state.name for trial in shared.trials()]


def distinct(shared):
    return len({identity(trial.params) for trial in shared.trials()})


def test_a_grid_runs_each_cell_once_and_goes_on_with_those_that_are_missing(search):
    work(search(CELLS, sampler="grid", trials=2))
    first = (STUDY / "trials" / "0" / "summary.json").read_bytes()
    whole = search(CELLS, sampler="grid", trials=10)
    work(whole)
    shared = whole.open()
    assert states(shared) == ["COMPLETE"] * 4
    assert distinct(shared) == 4
    assert (STUDY / "trials" / "0" / "summary.json").read_bytes() == first


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_no_combination_is_drawn_twice(search, sampler):
    asked = search({"optimizer.lr": [1e-3, 1e-2, 1e-1]}, ["trainer.max_steps=1"], sampler=sampler, trials=5)
    work(asked)
    shared = asked.open()
    assert states(shared) == ["COMPLETE"] * 3
    assert distinct(shared) == 3


def test_a_study_that_goes_on_draws_what_it_would_have_drawn(search):
    for trials in (1, 2):
        work(search(RATES, ["trainer.max_steps=1"], trials=trials, name="continued"))
    whole = search(RATES, ["trainer.max_steps=1"], trials=2, name="small")
    work(whole)
    continued = search(RATES, ["trainer.max_steps=1"], trials=2, name="continued")
    assert [t.params for t in continued.open().trials()] == [t.params for t in whole.open().trials()]


def test_trials_that_fail_are_recorded_and_counted(search):
    """One cannot be built, one diverges, one trains."""
    space = {"trainer.batch_size": [0, 256], "optimizer.lr": {"low": 1e-3, "high": 1e30, "step": 1e30 - 1e-3}}
    asked = search(space, ["optimizer=sgd"], sampler="grid", trials=4)
    work(asked)
    shared = asked.open()
    assert states(shared) == ["FAIL", "FAIL", "COMPLETE", "FAIL"]
    assert summary(STUDY, 0)["reason"] == "trainer.batch_size must be at least 1, got 0"
    assert "not finite" in summary(STUDY, 3)["reason"]
    assert "4 runs: 1 finished, 3 failed" in table(shared)
    assert "failed: outputs/studies/small/trials/0: trainer.batch_size must be at least 1, got 0" in table(shared)


def epochs(name):
    """Epochs begun and ended by all trials of a study, from their metrics."""
    files = (Path("outputs/studies") / name).glob("trials/*/metrics.jsonl")
    return sum('"epoch"' in line for file in files for line in file.read_text().splitlines())


def test_pruning_saves_epochs_keeps_the_best_and_is_listed(search):
    space, best = {"optimizer.lr": [1e-2, 1e-4, 1e-5, 1e-6]}, {}
    for name in ("none", "halving", "median"):
        asked = search(space, ["trainer.epochs=4"], sampler="grid", pruner=name, name=name, startup_trials=1)
        work(asked)
        assert len(asked.open().trials()) == 4
        best[name] = best_trials(asked.open())[0].params
    assert epochs("none") == 16
    assert max(epochs("median"), epochs("halving")) <= 0.7 * 16
    assert best["median"] == best["halving"] == best["none"]

    median = Path("outputs/studies/median")
    assert states(asked.open()) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    assert [summary(median, number)["status"] for number in range(2)] == ["finished", "pruned"]
    runs = read_runs([median])
    lines = notes(Table([], [], []), runs, len(runs))
    assert lines[0] == "4 runs: 1 finished, 3 pruned"
    assert lines[1].startswith("pruned: outputs/studies/median/trials/1: after epoch 1, with val/error 0.")
    assert lines[1] in table(asked.open())


def test_several_objectives_have_a_front(search):
    space = {"model.width": [4, 32], "optimizer.lr": [1e-2, 1e-6]}
    asked = search(space, objectives=["val/error", "parameters"], trials=4)
    work(asked)
    shared = asked.open()
    front = best_trials(shared)
    assert [trial.params["optimizer.lr"] for trial in front] == [1e-2, 1e-2]
    assert [trial.params["model.width"] for trial in front] == [32, 4]
    drawn = dict(pictures(shared))
    assert drawn["pareto.png"][:4] == b"\x89PNG"
    assert {"history_val_error.png", "importance_parameters.png", "parallel_val_error.png"} <= set(drawn)


def test_a_trial_that_was_killed_is_taken_up_so_many_times(search):
    asked = search(CELLS, max_retries=1, trials=1)
    for attempt in (1, 2):
        trial, folder = asked.open().take()
        assert (trial.number, trial.user_attrs["attempts"]) == (0, attempt)
        assert asked.open().take() is None  # it runs elsewhere
        folder.unlock()  # as the end of its process does
    assert asked.open().take() is None
    (failed,) = asked.open().runs()
    assert (failed.status, failed.reason) == ("failed", "its process was killed 2 times")


def test_a_trial_killed_after_its_summary_is_not_run_again(search):
    asked = search(CELLS, trials=1)
    work(asked)
    shared = search(CELLS, trials=2).open()
    _trial, folder = shared.take()
    content = summary(STUDY, 0)
    folder.write_summary(content)
    folder.unlock()
    work(search(CELLS, trials=2))
    assert [t.values for t in shared.trials()] == [[content["metrics"]["val/error"]]] * 2
    assert not (folder.path / "metrics.jsonl").exists()


def test_more_than_were_asked_for_are_void(search):
    """As when a machine without our lock has drawn at the same moment."""
    shared = search(CELLS, trials=1).open()
    shared.study.ask()
    shared.study.ask()
    shared.study.enqueue_trial({"optimizer.lr": 1e-3, "trainer.batch_size": 128})
    late = shared.study.ask()
    assert shared._why_not(late, shared.space.suggest(late)) == "more than were asked for"


def test_a_repetition_is_void(search):
    shared = search(CELLS, trials=5).open()
    trials = []
    for _ in range(2):
        shared.study.enqueue_trial({"optimizer.lr": 1e-3, "trainer.batch_size": 128})
        trials.append(shared.study.ask())
    shared.space.suggest(trials[0])
    assert shared._why_not(trials[1], shared.space.suggest(trials[1])) == "repeats 0"


def test_a_database_keeps_a_study_too(search, tmp_path):
    asked = search(CELLS, ["trainer.max_steps=1"], storage=f"sqlite:///{tmp_path}/studies.db", trials=1)
    work(asked)
    assert states(asked.open()) == ["COMPLETE"]
    assert not (STUDY / "journal.log").exists()
    assert json.loads(asked.open().study.user_attrs["begun"])["objectives"] == ["val/error"]
