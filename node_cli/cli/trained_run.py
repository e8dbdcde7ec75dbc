"""A run that was trained before, taken up by another command: its config and its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from node_cli.config import ConfigError, has_target, is_below, parts_of, top_level_problems
from node_cli.training.checkpoint import CheckpointError, judged_weights, load_into, read_checkpoint
from node_cli.training.run_folder import RunFolder
from node_cli.trust import untrusted_targets

PARTS = ("dataset", "task", "model", "solver", "gradient", "trainer")
KEYS = ("seed", "precision")


def config_of_run(config: dict[str, Any]) -> dict[str, Any]:
    """What the run that `config` names was trained with, on the device and with the packages of today.

    Raises:
        ConfigError: there is no such run, or its config names a part that is not trusted.
    """
    folder = RunFolder.of(config["run"])
    trained = folder.read_config()
    problems = _what_is_missing(trained) or list(top_level_problems(trained).values())
    if problems:
        raise ConfigError(f"{folder.config} is damaged: {'; '.join(problems)}")
    problems = untrusted_targets(trained, config["packages"])
    if problems:
        raise ConfigError("\n".join(problems))
    data = trained["dataset"]
    if "mirrors" in data and not is_below(str(data.get("data_dir")), os.getcwd()):
        data["mirrors"] = []  # what is there is read; nothing is downloaded to a place that the run has chosen
    return trained | {key: config[key] for key in ("device", "num_threads", "packages")}


def load_weights(model: nn.Module, config: dict[str, Any]) -> None:
    """Gives `model` the weights, averaged if they were, of the checkpoint that `run` and `checkpoint` name.

    Raises:
        ConfigError: there is no such checkpoint, or it is damaged.
    """
    path = Path(config["run"])
    if path.suffix != ".pt":
        path = RunFolder.of(config["run"]).checkpoints / f"{config['checkpoint']}.pt"
    try:
        weights = judged_weights(read_checkpoint(path))
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    try:
        load_into(model, weights)
    except CheckpointError as error:
        raise ConfigError(f"{path} {error}") from error


def _what_is_missing(trained: dict[str, Any]) -> list[str]:
    """A few words for each part and key that the config of a run must have, and this one has not."""
    problems = [f"it has no {key}" for key in (*PARTS, *KEYS) if key not in trained]
    parts = {key: part for group in PARTS if group in trained for key, part in parts_of(trained, group).items()}
    return problems + [f"{key} names no class" for key, part in parts.items() if not has_target(part)]
