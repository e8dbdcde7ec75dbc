"""Where the data of a run lie today: relative to where it was started, or where a command says. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from node_cli.config import ConfigError, is_path
from node_cli.runs.folder import RunFolder

KEYS = ("path", "data_dir")  # of a dataset; what lies there is held against the digest of the run
PLACES = tuple(f"dataset.{key}" for key in KEYS)


def with_data_of_run(overrides: Sequence[str]) -> list[str]:
    """`dataset.path=...` beside `run=...` says where the data of the run are now; its dataset is chosen for it.

    Raises:
        ConfigError: more of the dataset is set, there is no such run, or its dataset was not recorded by name.
    """
    typed = dict(word.partition("=")[::2] for word in overrides)
    value = typed.get("run", "").strip("'\"")
    of_data = [key for key in typed if key == "dataset" or key.startswith("dataset.")]
    if not of_data or not is_path(value) or value == "null":
        return list(overrides)
    others = [key for key in of_data if key not in PLACES]
    if others:
        raise ConfigError(
            f"{', '.join(others)} has no effect with run=..., which brings its own: of its dataset only "
            f"{' and '.join(PLACES)} can be set, where its data were moved"
        )
    folder = RunFolder.of(value)
    name = folder.read_choices().get("dataset")
    if not (isinstance(name, str) and name.isidentifier()):
        raise ConfigError(f"the dataset of {folder.path} was not recorded by name: {of_data[0]} cannot be set")
    return [f"dataset={name}", *overrides]


def located(config: Mapping[str, Any], folder: RunFolder, typed: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Each key of the dataset of `config`, that of the run in `folder`, whose data lie elsewhere, and where.

    What was `typed` says where; else a relative path is one from the folder where the run was started, if it is there.
    """
    dataset, origin = config.get("dataset"), folder.read_origin()
    if not isinstance(dataset, dict):
        return {}
    places: dict[str, str] = {}
    for key in KEYS:
        value = dataset.get(key)
        if typed and key in typed:
            places[key] = str(typed[key])
        elif isinstance(value, str) and origin is not None and not os.path.isabs(value):
            there = os.path.join(origin, value)
            if os.path.realpath(there) != os.path.realpath(value) and os.path.exists(there):
                places[key] = there
    return places


def data_moved(config: Mapping[str, Any], folder: RunFolder) -> list[str]:
    """A line for each place of data that is another one in `config` than in the config that the folder holds."""
    was, now = folder.read_config().get("dataset"), config["dataset"]
    was = was if isinstance(was, dict) else {}
    return [
        f"dataset.{key}: the data are read from {now[key]} now, not from {was.get(key)}"
        for key in KEYS
        if key in now and now[key] != was.get(key)
    ]
