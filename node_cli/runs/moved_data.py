"""Where the data of a run lie today: relative to where it was started, or where a command says. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from node_cli.config import PLACES
from node_cli.runs.folder import RunFolder

KEYS = tuple(key.removeprefix("dataset.") for key in PLACES)


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
