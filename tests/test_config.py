"""The table of keys, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from node_cli.config import KEYS, config_dir, differences, known_of, leaves, wrong_values

FOLDER = Path(config_dir())
OF_HYDRA = {"defaults", "hydra"}


def keys_of(path: Path) -> set[str]:
    """The keys of a config that a shipped file sets, with the group that it lies in."""
    text = path.read_text()
    keys = {key for key, _ in leaves(yaml.safe_load(text) or {})}
    is_global = path.parent == FOLDER or "@package _global_" in text
    prefix = "" if is_global else f"{path.parent.name}."
    return {f"{prefix}{key}" for key in keys if key.partition(".")[0] not in OF_HYDRA}


FILES = sorted(FOLDER.rglob("*.yaml"))
SHIPPED = set().union(*map(keys_of, FILES)) | {path.parent.name for path in FILES if path.parent != FOLDER}


def test_every_key_of_every_shipped_file_is_in_reach_of_the_table():
    groups = {key.partition(".")[0] for key in SHIPPED}
    assert len(groups) > 20
    assert groups <= set(KEYS)


def test_the_table_has_no_key_that_no_shipped_file_has():
    shipped = {".".join(parts[:n]) for parts in (key.split(".") for key in SHIPPED) for n in range(1, len(parts) + 1)}
    assert set(KEYS) - shipped == set()


def test_a_key_is_what_its_own_entry_says_else_what_its_group_is():
    assert known_of("trainer.keep").may_change
    assert not known_of("trainer.batch_size").may_change
    assert known_of("audit.batch_size").may_change
    assert known_of("logger.tensorboard.run_name").of_machine
    assert known_of("dataset.noise").from_run
    assert not known_of("sweep.name").is_hyperparameter
    assert known_of("no.such.key") == known_of("optimizer")


def test_a_run_that_goes_on_may_have_its_data_elsewhere_and_train_longer_and_nothing_else():
    was = {
        "seed": 0,
        "dataset": {"path": "a", "noise": 1.0},
        "trainer": {"epochs": 1, "batch_size": 2},
        "device": "cpu",
    }
    now = {"seed": 1, "dataset": {"path": "b", "noise": 2.0}, "trainer": {"epochs": 3, "batch_size": 4}, "new": 1}
    assert differences(was, now) == ["seed: 0 -> 1", "dataset.noise: 1.0 -> 2.0", "trainer.batch_size: 2 -> 4"]


@pytest.mark.parametrize("value", [None, "", "a\nb", "x" * 300])
def test_only_an_audit_needs_no_folder_named(value):
    assert list(wrong_values({"run_dir": value})) == ["run_dir"]
    assert list(wrong_values({"run_dir": value, "problem": {}})) == ([] if value is None else ["run_dir"])
