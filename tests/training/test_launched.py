"""What the environment says of processes that train together."""

from __future__ import annotations

import pytest

from node_cli.training import launched

SECOND_OF_FOUR = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "1",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
}
SMALL = ["model=mlp", "model.width=4", "trainer.max_steps=1", "num_threads=1", "device=cpu", "logger=jsonl"]


def answers() -> list[object]:
    asked = (launched.rank, launched.count, launched.local_rank, launched.local_count, launched.was_started_again)
    return [ask() for ask in asked]


def test_a_launcher_sets_all_of_them(monkeypatch):
    for name, value in SECOND_OF_FOUR.items():
        monkeypatch.setenv(name, value)
    assert answers() == [3, 4, 1, 2, True]


@pytest.mark.parametrize("missing", SECOND_OF_FOUR)
def test_a_part_of_them_is_not_of_a_launcher(missing, monkeypatch):
    for name, value in SECOND_OF_FOUR.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    assert answers() == [0, 1, 0, 1, False]


def test_a_lone_variable_changes_no_run(typed, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "left over")
    result = typed("node-train", *SMALL, "run_dir=run")
    assert (result.status, result.err) == (0, "")
