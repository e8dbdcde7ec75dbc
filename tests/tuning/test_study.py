"""Studies in this process: what is drawn, taken up again, pruned, and recorded."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from small_studies import RATES, summary

from node_cli.cli.tune import work
from node_cli.commands import training
from node_cli.commands.training import run_training
from node_cli.config import ConfigError
from node_cli.runs.outcome import UnwrittenRunError
from node_cli.runs.report.formats import notes_on
from node_cli.runs.report.reading import read_runs
from node_cli.tuning.plots import figures
from node_cli.tuning.results import best_trials, table
from node_cli.tuning.search_space import identity

pytestmark = pytest.mark.slow

CELLS = {"optimizer.lr": [1e-3, 1e-2], "trainer.batch_size": [128, 256]}
STUDY = Path("outputs/studies/small")


def states(shared):
    return [trial.state.name for trial in shared.trials()]


def distinct(shared):
    return len({identity(trial.params) for trial in shared.trials()})


def finish(search, *errors, **figures):
    """Takes a trial for each of `errors` and ends it: its folder holds what a run leaves that ended so."""
    shared = search.open()
    for error in errors:
        trial, folder = shared.take()
        metrics = {"val/error": error, **figures}
        folder.write_summary({"status": "finished", "metrics": metrics, "config": {}, "choices": {}})
        shared.settle(trial, folder)
        folder.unlock()
    return shared


def test_a_grid_runs_each_cell_once_and_goes_on_with_those_that_are_missing(search):
    finish(search(CELLS, sampler="grid", trials=2), 0.1, 0.2)
    whole = search(CELLS, sampler="grid", trials=10)
    shared = finish(whole, 0.3, 0.4)
    assert shared.take() is None
    assert states(shared) == ["COMPLETE"] * 4
    assert distinct(shared) == 4
    assert [trial.values for trial in shared.trials()] == [[0.1], [0.2], [0.3], [0.4]]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_no_combination_is_drawn_twice(search, sampler):
    shared = finish(search({"optimizer.lr": [1e-3, 1e-2, 1e-1]}, sampler=sampler, trials=5), 0.1, 0.2, 0.3)
    assert shared.take() is None
    assert states(shared) == ["COMPLETE"] * 3
    assert distinct(shared) == 3


def test_a_study_that_goes_on_draws_what_it_would_have_drawn(search):
    """Beyond the random draws of the start."""
    errors = [0.1, 0.3, 0.2, 0.4]
    for at, error in enumerate(errors):
        continued = finish(search(RATES, trials=at + 1, startup_trials=2, name="continued"), error)
    whole = finish(search(RATES, trials=4, startup_trials=2), *errors)
    assert [t.params for t in continued.trials()] == [t.params for t in whole.trials()]


def test_trials_that_fail_are_recorded_and_counted(search):
    """One trains, one diverges, one cannot be built."""
    space = {"trainer.batch_size": [256, 0], "optimizer.lr": {"low": 1e-3, "high": 1e30, "step": 1e30 - 1e-3}}
    asked = search(space, ["optimizer=sgd"], sampler="grid", trials=3)
    work(asked)
    shared = asked.open()
    assert states(shared) == ["COMPLETE", "FAIL", "FAIL"]
    assert "not finite" in summary(STUDY, 1)["reason"]
    assert summary(STUDY, 2)["reason"] == "trainer.batch_size must be at least 1, got 0"
    assert "3 runs: 1 finished, 2 failed" in table(shared)
    assert "failed: outputs/studies/small/trials/2: trainer.batch_size must be at least 1, got 0" in table(shared)


def epochs(name):
    """Epochs begun and ended by all trials of a study, from their metrics."""
    files = (Path("outputs/studies") / name).glob("trials/*/metrics.jsonl")
    return sum('"epoch"' in line for file in files for line in file.read_text().splitlines())


def test_pruning_saves_epochs_keeps_the_best_and_is_listed(search):
    space = {"optimizer.lr": [1e-2, 1e-5, 1e-6]}
    for name in ("halving", "median"):
        asked = search(space, ["trainer.epochs=4"], sampler="grid", pruner=name, name=name, startup_trials=1)
        work(asked)
        assert states(asked.open()) == ["COMPLETE", "PRUNED", "PRUNED"]
        assert epochs(name) <= 0.7 * 3 * 4
        assert best_trials(asked.open())[0].params == {"optimizer.lr": 1e-2}

    median = Path("outputs/studies/median")
    assert [summary(median, number)["status"] for number in range(2)] == ["finished", "pruned"]
    runs = read_runs([median])
    lines = notes_on([], runs, len(runs))
    assert lines[0] == "3 runs: 1 finished, 2 pruned"
    assert lines[1].startswith("pruned: outputs/studies/median/trials/1: after epoch 1, with val/error 0.")
    assert lines[1] in table(asked.open())


def test_several_objectives_have_a_front(search):
    asked = search({"model.width": [4, 16, 32]}, objectives=["val/error", "parameters"], sampler="grid", trials=3)
    for error, parameters in ((0.3, 100), (0.2, 300), (0.1, 200)):
        shared = finish(asked, error, parameters=parameters)
    assert [trial.params["model.width"] for trial in best_trials(shared)] == [32, 4]
    drawn = dict(figures(shared))
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


def test_a_full_disk_ends_the_command_and_no_trial(search, monkeypatch, capsys):
    def full(*_):
        raise UnwrittenRunError("metrics.jsonl: 20 bytes could not be written: No space left on device")

    def unwritten(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    asked = search(CELLS, trials=2, max_retries=0)
    for failing in (full, unwritten):
        monkeypatch.setattr(training, "run_training", failing)
        with pytest.raises(SystemExit) as end:
            work(asked)
        assert end.value.code == 1
        told = capsys.readouterr().err
        assert told.startswith("node-tune: trial 0: ")
        assert told.endswith("No space left on device; make room, and the same command goes on\n")
    assert states(asked.open()) == ["RUNNING"]
    monkeypatch.setattr(training, "run_training", run_training)
    work(asked)
    assert states(asked.open()) == ["COMPLETE", "COMPLETE"]


def test_a_trial_killed_after_its_summary_is_not_run_again(search):
    shared = search(CELLS, trials=1).open()
    _trial, folder = shared.take()
    folder.write_summary({"status": "finished", "metrics": {"val/error": 0.1}, "config": {}, "choices": {}})
    folder.unlock()
    work(search(CELLS, trials=1))
    assert [t.values for t in shared.trials()] == [[0.1]]
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


def test_a_folder_of_another_study_is_not_taken_for_a_trial(search, tmp_path):
    """As when a name is given again with another storage."""
    finish(search(CELLS, trials=1), 0.1)
    other = search(CELLS, ["seed=1"], storage=f"sqlite:///{tmp_path}/studies.db", trials=1).open()
    with pytest.raises(ConfigError) as caught:
        other.take()
    assert str(caught.value) == (
        "tune.name: outputs/studies/small/trials/0 is of another study, kept elsewhere (tune.storage): "
        "give another tune.name"
    )
    assert other.trials() == []


def test_a_database_keeps_a_study_too(search, tmp_path):
    asked = search(CELLS, ["trainer.max_steps=1"], storage=f"sqlite:///{tmp_path}/studies.db", trials=1)
    work(asked)
    assert states(asked.open()) == ["COMPLETE"]
    assert not (STUDY / "journal.log").exists()
    assert json.loads(asked.open().study.user_attrs["begun"])["objectives"] == ["val/error"]
