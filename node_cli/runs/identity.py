"""Which run a checkpoint is of: its config and its data are in it, under the digest that guards it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node_cli.config import differences
from node_cli.training.checkpoint import OtherRunError

RUN = "run"


def identity(config: Mapping[str, Any], data: str | None) -> dict[str, Any]:
    """What a checkpoint holds of its run: `data` is the digest of the dataset."""
    return {RUN: {"config": config, "data": data}}


def check_identity(
    path: Path, payload: Mapping[str, Any], config: Mapping[str, Any], data: str | None, may_change: tuple[str, ...]
) -> str:
    """Holds a checkpoint against the config and the data that it is to go on with.

    Returns:
        A sentence where it cannot be told, as an earlier version wrote the checkpoint; empty otherwise.

    Raises:
        OtherRunError: they are not those that it was trained with; keys that `may_change` are not compared.
    """
    known = payload.get(RUN)
    if not isinstance(known, dict) or not isinstance(known.get("config"), dict):
        return (
            f"{path} was written by a version that recorded neither its config nor its data in it: "
            "whether they are the same cannot be told"
        )
    changed = differences(known["config"], config, except_for=may_change)
    if changed:
        raise OtherRunError(
            f"{path} was trained with another config than this run has ({'; '.join(changed)}): "
            "restore .hydra/config.yaml, or take a checkpoint of this run"
        )
    if known.get("data") != data:
        raise OtherRunError(
            f"{path} was trained with other data than dataset={_name(config)} gives now: restore them, or set "
            "dataset.path or dataset.data_dir to where they are"
        )
    return ""


def _name(config: Mapping[str, Any]) -> str:
    dataset = config.get("dataset")
    places = [f"{key}={dataset[key]}" for key in ("path", "data_dir") if key in dataset] if dataset else []
    return " ".join([str(dataset["_target_"]).rpartition(".")[2] if dataset else "none", *places])
