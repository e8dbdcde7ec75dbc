"""What `resume` and `run_dir` mean: which checkpoint a command continues from, and whether it may. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from node_cli.cli.moved_data import PLACES, located
from node_cli.cli.quoting import key_of, quoted, value_of
from node_cli.config import ConfigError, differences, is_path, shown
from node_cli.runs.folder import RunFolder

OF_A_SWEEP = ("sweep.", "hydra.", "hydra/")  # words that a job of it was begun with, and that are not its own

# What a run may change on its way without becoming another run.
MAY_CHANGE = (
    "resume",
    "run_dir",
    "packages",
    "logger",
    "audit",
    "sweep",
    "num_threads",
    "device",
    "dataset.mirrors",
    "optimizer.lr",
    "scheduler.on_resume",
    "solver.sync_steps",
    "trainer.devices",
    "trainer.max_restarts",
    "trainer.epochs",
    "trainer.max_steps",
    "trainer.max_seconds",
    "trainer.patience",
    "trainer.on_bad_step",
    "trainer.spike_factor",
    "trainer.max_skipped",
    "trainer.log_every_steps",
    "trainer.histograms_every_epochs",
    "trainer.pictures_every_epochs",
    "trainer.save_every_steps",
    "trainer.keep",
)


def with_overrides_of_run(overrides: list[str]) -> list[str]:
    """`resume=<path>` stands for all overrides of that run, in its folder; those typed now come on top.

    How the learning rate goes on is for one continuation: the next one has to say it again.

    Raises:
        ConfigError: there is no run at the path.
    """
    typed = {key_of(override): override for override in overrides}
    value = value_of(typed.get("resume", "resume=null"))
    if value in ("null", "auto", ""):
        return overrides
    if not is_path(value):
        raise ConfigError(f"resume must be a run folder, a checkpoint file, auto or null, got {shown(value)}")
    folder = RunFolder.of(value)
    if "run_dir" in typed and Path(value_of(typed["run_dir"])) != folder.path:
        raise ConfigError(f"run_dir cannot be set with resume={value}: a run continues in its own folder")
    typed["run_dir"] = f"run_dir={quoted(os.fspath(folder.path))}"
    typed["resume"] = f"resume={quoted(value)}"
    for key, place in located(folder.read_config(), folder).items():
        typed.setdefault(f"dataset.{key}", f"dataset.{key}={quoted(place)}")
    left = (*typed, "scheduler.on_resume")
    inherited = [o for o in _recorded_overrides(folder) if key_of(o) not in left and not o.startswith(OF_A_SWEEP)]
    packages = [word for word in inherited if key_of(word) == "packages"]
    if packages:
        raise ConfigError(
            f"resume: {folder.path} was begun with {packages[-1]}: if you trust them, name them again: "
            f"node-train resume={value} '{packages[-1]}'"
        )
    return inherited + list(typed.values())


def checkpoints_to_resume(config: dict[str, Any], folder: RunFolder) -> list[Path]:
    """The checkpoints that `config` may continue from in `folder`, the first one meant; none: it starts there.

    One that was named is the only one. Of a folder, those behind its last one stand in for it if it is damaged.

    Raises:
        ConfigError: the folder holds a run that was not asked for, or one with other settings, or no checkpoint.
    """
    resume = config["resume"]
    wrong = folder.wrong_kinds()
    if wrong:
        raise ConfigError(f"{wrong[0]}: set another run_dir, or remove it")
    foreign = folder.foreign_files() if not folder.holds_run else []
    if foreign:
        raise ConfigError(f"run_dir={folder.path} holds no run but {', '.join(foreign[:3])}: set a folder of its own")
    if resume is None:
        if folder.holds_run:
            raise ConfigError(
                f"run_dir={folder.path} holds a run: add resume=auto to continue it, or set another run_dir"
            )
        return []
    paths = [Path(resume)] if resume.endswith(".pt") else folder.resumable()
    if not all(map(os.path.lexists, paths)) or not (paths or resume == "auto"):
        missing = paths[0] if paths else folder.checkpoints / "last.pt"
        raise ConfigError(f"nothing to resume: {missing} does not exist")
    if not paths:
        if folder.is_finished:
            raise ConfigError(f"{folder.path} holds a finished run without its checkpoints: set another run_dir")
        return []
    changed = differences(folder.read_config(), config, except_for=(*MAY_CHANGE, *PLACES))
    if changed:
        raise ConfigError(
            f"{folder.path} was trained with other settings ({'; '.join(changed)}): start a new run for them"
        )
    return paths


def _recorded_overrides(folder: RunFolder) -> list[str]:
    """The words that the run was begun with.

    Raises:
        ConfigError: they are damaged.
    """
    overrides = folder.read_overrides()
    odd = [word for word in overrides if not isinstance(word, str)]
    if odd:
        raise ConfigError(f"{folder.overrides} is damaged: {shown(odd[0])} is no word of a command line")
    return overrides
