"""A run that was trained before, taken up by another command: its config and its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from node_cli.config import KEYS, ConfigError, leaves, shown, wrong_values
from node_cli.files import is_below
from node_cli.runs.folder import RunFolder
from node_cli.runs.identity import check_config, check_data
from node_cli.runs.moved_data import located
from node_cli.schema import has_target, out_of_range
from node_cli.training.checkpoint import CheckpointError, evaluated_weights, load_into, read_checkpoint
from node_cli.trust import untrusted_parts

OPTIONAL = ("vector_field",)  # of a model that has its own
FROM_RUN = tuple(name for name, key in KEYS.items() if key.from_run and "." not in name)
NEEDED = (*(name for name in FROM_RUN if name not in OPTIONAL), "solver", "gradient", "trainer")


def config_of_run(config: dict[str, Any], *, is_moved: bool) -> dict[str, Any]:
    """What the run that `config` names was trained with, on the device and with the packages of today.

    With `is_moved`, its data are where the dataset of `config` says.

    Raises:
        ConfigError: there is no such run, or its config names a part that is not trusted.
    """
    folder = RunFolder.of(config["run"])
    trained = folder.read_config()
    groups = [key for key in NEEDED if key in trained and not KEYS[key].must_be]
    problems = [f"it has no {key}" for key in NEEDED if key not in trained]
    problems += [f"{key} names no class" for key in groups if not has_target(trained[key])]
    if not problems:
        problems = [*wrong_values(trained).values()]
        problems += out_of_range(leaves(trained))
        size = trained["trainer"].get("eval_batch_size")
        if type(size) is not int or size < 1:
            problems.append(f"trainer.eval_batch_size must be a whole number, 1 or more, got {shown(size)}")
    if problems:
        raise ConfigError(f"{folder.config} is damaged: {'; '.join(problems)}")
    problems = untrusted_parts(trained, config["packages"])
    if problems:
        raise ConfigError("\n".join(problems))
    trained["dataset"] |= located(trained, folder, config.get("dataset") if is_moved else None)
    data = trained["dataset"]
    if "mirrors" in data and not is_below(str(data.get("data_dir")), os.getcwd()):
        data["mirrors"] = []  # what is there is read; nothing is downloaded to a place that the run has chosen
    return trained | {key: config[key] for key in ("device", "num_threads", "packages")}


def checkpoint_of_run(config: Mapping[str, Any]) -> tuple[Path, dict[str, Any], str]:
    """The checkpoint that `run` and `checkpoint` name: its path, its payload, and what is not known of it.

    Raises:
        ConfigError: there is no such checkpoint, it is damaged, or of another config than the run has.
    """
    folder, path = RunFolder.of(config["run"]), Path(config["run"])
    if path.suffix != ".pt":
        path = folder.checkpoints / f"{config['checkpoint']}.pt"
    payload = read_checkpoint(path)
    return path, payload, check_config(path, payload, folder.read_config())


def load_weights(model: nn.Module, data: str | None, config: dict[str, Any]) -> list[str]:
    """Gives the model of a run the weights of the checkpoint that `run` and `checkpoint` of a command name.

    `data` is the digest of the dataset that it has now. Returns a line where it is not known whether that is the same.

    Raises:
        ConfigError: there is no such checkpoint, it is damaged, or of another config or other data than there are now.
    """
    path, payload, note = checkpoint_of_run(config)
    check_data(path, payload, RunFolder.of(config["run"]).read_config(), data)
    take_weights(model, path, payload)
    return [note] if note else []


def take_weights(model: nn.Module, path: Path, payload: Mapping[str, Any]) -> None:
    """Gives the model the weights of a checkpoint, averaged if they were.

    Raises:
        ConfigError: they are those of another model.
    """
    try:
        load_into(model, evaluated_weights(payload))
    except CheckpointError as error:
        raise ConfigError(f"{path} {error}") from error
