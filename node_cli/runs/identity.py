"""Which run a checkpoint is of: its config and its data are in it, under the digest that guards it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node_cli.config import differences
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.spec import DataSpec
from node_cli.runs.folder import as_today
from node_cli.training.checkpoint import CheckpointError, OtherRunError

RUN = "run"


def identity(config: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint holds of its run: config, digest of the data, and what a model needs to know of them."""
    return {RUN: {"config": config, "data": dataset.digest, "dataset": DataSpec.of(dataset).state_dict()}}


def spec_in(path: Path, payload: Mapping[str, Any]) -> DataSpec | None:
    """What a checkpoint holds of its dataset; None where an earlier version wrote it, or its offers are not plain.

    Raises:
        CheckpointError: it is damaged.
    """
    known = payload.get(RUN)
    state = known.get("dataset") if isinstance(known, dict) else None
    try:
        return DataSpec.from_state_dict(state) if state else None
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def check_identity(path: Path, payload: Mapping[str, Any], config: Mapping[str, Any], data: str | None) -> str:
    """Holds a checkpoint against the config and the data that it is to go on with; returns what `check_config` does.

    Raises:
        OtherRunError: they are not those that it was trained with, but for keys that a run may change.
    """
    note = check_config(path, payload, config)
    check_data(path, payload, config, data)
    return note


def check_config(path: Path, payload: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The same of the config alone; returns a sentence where an earlier version wrote the checkpoint, else nothing."""
    known = _known(payload)
    if known is None:
        return (
            f"{path} was written by a version that recorded neither its config nor its data in it: "
            "whether they are the same cannot be told"
        )
    changed = differences(as_today(known["config"]), config)
    if changed:
        raise OtherRunError(
            f"{path} was trained with another config than this run has ({'; '.join(changed)}): "
            "restore .hydra/config.yaml, or take a checkpoint of this run"
        )
    return ""


def check_data(path: Path, payload: Mapping[str, Any], config: Mapping[str, Any], data: str | None) -> None:
    """The same of the data alone, by their digest."""
    known = _known(payload)
    if known is not None and known.get("data") != data:
        raise OtherRunError(
            f"{path} was trained with other data than dataset={_name(config)} gives now: restore them, or set "
            "dataset.path or dataset.data_dir to where they are"
        )


def _known(payload: Mapping[str, Any]) -> dict[str, Any] | None:
    known = payload.get(RUN)
    return known if isinstance(known, dict) and isinstance(known.get("config"), dict) else None


def _name(config: Mapping[str, Any]) -> str:
    dataset = config.get("dataset")
    places = [f"{key}={dataset[key]}" for key in ("path", "data_dir") if key in dataset] if dataset else []
    return " ".join([str(dataset["_target_"]).rpartition(".")[2] if dataset else "none", *places])
