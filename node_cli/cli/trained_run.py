"""A run that was trained before, taken up by another command: its config and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from node_cli.config import ConfigError, untrusted_targets
from node_cli.training.checkpoint import CheckpointError, read_checkpoint
from node_cli.training.run_folder import RunFolder


def config_of_run(config: dict[str, Any]) -> dict[str, Any]:
    """What the run that `config` names was trained with, on the device and with the packages of today.

    Raises:
        ConfigError: there is no such run, or its config names a part that is not trusted.
    """
    trained = RunFolder.of(config["run"]).read_config()
    problems = untrusted_targets(trained, config["packages"])
    if problems:
        raise ConfigError("\n".join(problems))
    return trained | {key: config[key] for key in ("device", "num_threads", "packages")}


def load_weights(model: nn.Module, config: dict[str, Any]) -> None:
    """Gives `model` the weights of the checkpoint that `run` and `checkpoint` of `config` name.

    Raises:
        ConfigError: there is no such checkpoint, or it is damaged.
    """
    path = Path(config["run"])
    if path.suffix != ".pt":
        path = RunFolder.of(config["run"]).checkpoints / f"{config['checkpoint']}.pt"
    try:
        model.load_state_dict(read_checkpoint(path)["model"])
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
