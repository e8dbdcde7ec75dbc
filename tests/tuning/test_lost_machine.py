"""A data base is all that two machines share. Here they are two working folders, and one of them is killed."""

from __future__ import annotations

import sqlite3

import pytest
from small_studies import DEFAULTS, QUICK, start, wait_for

from node_cli.cli.tune import work
from node_cli.tuning.heartbeat import quietly
from node_cli.tuning.results import table

pytestmark = pytest.mark.slow

ENDLESS = "trainer.epochs=100000"


@pytest.fixture
def machine(search, tmp_path, monkeypatch):
    """`machine("a", trials=1)`: the study as one machine, working in its own folder, knows it."""

    def made(name, words=(), **tune):
        (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / name)
        return search(DEFAULTS["space"], words, **{"storage": f"sqlite:///{tmp_path}/studies.db", "trials": 1, **tune})

    return made


def an_hour_passes(folder):
    with sqlite3.connect(folder / "studies.db") as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour')")
    database.close()


def test_a_trial_of_a_machine_that_was_killed_is_run_by_another(machine, tmp_path):
    other = machine("other", [ENDLESS])
    (tmp_path / "gone").mkdir()
    storage = f"tune.storage={other.settings.storage}"
    killed = start(tmp_path / "gone", *QUICK, ENDLESS, "tune.name=small", "tune.trials=1", "tune.pruner=none", storage)
    wait_for(tmp_path / "gone" / "outputs/studies/small/trials/0/.hydra/config.yaml", killed)
    assert other.open().take() is None  # it lives
    killed.kill()
    killed.communicate()
    assert other.open().take() is None  # it may live
    (lost,) = other.open().trials()

    assert "trials/0: not on this machine" in table(other.open())

    an_hour_passes(tmp_path)
    trial, folder = other.open().take()
    assert (trial.number, trial.params, trial.user_attrs["attempts"]) == (1, lost.params, 2)
    assert folder.path.parts[-2:] == ("trials", "1")
    assert [t.number for t in other.open().trials()] == [1]
    assert other.open().take() is None


def test_a_lost_trial_that_was_begun_too_often_is_recorded_as_failed(machine, tmp_path):
    assert machine("gone", max_retries=0).open().take()
    an_hour_passes(tmp_path)
    work(machine("other", max_retries=0))
    (run,) = machine("other").open().runs()
    assert (run.status, run.reason) == ("failed", "its machine gave no sign of life for 600 seconds")
    assert str(run.folder).endswith("gone/outputs/studies/small/trials/0")


def test_a_machine_that_comes_back_leaves_its_trial_to_the_other(machine, tmp_path):
    """As after a night asleep."""
    asleep = machine("asleep", ["trainer.max_steps=1"]).open()
    trial, folder = asleep.take()
    an_hour_passes(tmp_path)
    work(machine("other", ["trainer.max_steps=1"]))
    (done,) = asleep.trials()
    assert asleep.settle(trial, folder).startswith("given up: its machine gave no sign of life for 600 seconds")
    assert [t.values for t in asleep.trials()] == [done.values]
    assert (done.number, done.params) == (1, trial.params)


def test_a_trial_whose_machine_was_killed_while_drawing_is_drawn_again(machine, tmp_path):
    with quietly():
        machine("gone").open().study.ask()
    other = machine("other").open()
    assert other.take() is None
    an_hour_passes(tmp_path)
    trial, _folder = other.take()
    assert (trial.number, trial.user_attrs["attempts"]) == (1, 1)
    assert [t.number for t in other.trials()] == [1]
