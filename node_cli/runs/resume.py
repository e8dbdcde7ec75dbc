"""Which checkpoint a run continues from, and whether it may. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from node_cli.config import ConfigError, differences
from node_cli.runs.folder import RunFolder


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
    if config.get("init_from") is not None and "init_from" not in folder.read_config():  # of an earlier version
        raise ConfigError(f"init_from has no effect on {folder.path}, which is continued: leave it out")
    changed = differences(folder.read_config(), config)
    if changed:
        raise ConfigError(
            f"{folder.path} was trained with other settings ({'; '.join(changed)}): start a new run for them"
        )
    return paths
