"""`node-train`: trains a Neural ODE from a config of parts, or a grid of them with `-m`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from node_cli.cli.app import launch
from node_cli.cli.compose import choices_of_ours
from node_cli.cli.overrides import going_on, key_of, plain_or_quoted, quoted, value_of
from node_cli.cli.own_files import folder_of
from node_cli.cli.sweep import run_cell, sweeping, with_overrides_of_sweep
from node_cli.config import ConfigError, is_path, resolved, shown
from node_cli.runs.folder import Request, RunFolder
from node_cli.runs.moved_data import located
from node_cli.runs.outcome import RunFailedError
from node_cli.runs.resume import checkpoints_to_resume
from node_cli.training import launched
from node_cli.training.stopping import Stopped

OF_A_SWEEP = ("sweep.", "hydra.", "hydra/")  # words that a job of it was begun with, and that are not its own
OF_THE_PARENT = ("run_dir", "resume", "sweep.", "hydra.", "hydra/")  # words that are not for the processes it starts


def main() -> None:
    """The entry point."""
    if launched.is_one_of_several():
        launched.end_with_parent()
    launch("train", run, expand=_meant, sweep=sweeping, needs_output=False)


def _meant(overrides: list[str]) -> list[str]:
    return with_overrides_of_run(with_overrides_of_sweep(overrides))


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


def run(cfg: DictConfig) -> None:
    """Trains one config, or one cell of a sweep."""
    job = HydraConfig.get()
    words = [word.removeprefix("++") for word in job.overrides.task]  # see `for_every_choice`
    request = Request(resolved(cfg), words, choices_of_ours(job.runtime.choices))
    if job.mode == RunMode.MULTIRUN:
        run_cell(request, Path(job.runtime.output_dir), train)
        return
    if request.config["resume"] == "auto" and not any(word.startswith("run_dir=") for word in request.overrides):
        raise ConfigError("resume=auto continues what run_dir holds, or starts there: set run_dir=... too")
    folder = RunFolder(Path(request.config["run_dir"]))
    try:
        train(request, folder)
    except Stopped as stopped:
        if launched.is_one_of_several() or not folder.holds_run:  # whoever has started them says it; nothing goes on
            raise
        again = going_on(f"resume={plain_or_quoted(str(folder.path))}", request.overrides, _own_files())
        raise Stopped(f"{stopped}; to go on: {again}", stopped.status) from stopped


def train(request: Request, folder: RunFolder) -> None:
    """Trains in `folder`; torch is imported only now that the command line has proved sound."""
    if launched.was_started_again():
        request.config["resume"] = "auto"
    try:
        _check_launch(request)
        checkpoints: list[Path] = []
        if launched.rank() == 0:
            folder.lock()  # before the look at what is there, and until the end: nobody else begins meanwhile
            checkpoints = checkpoints_to_resume(request.config, folder)
        if _num_processes(request.config) > launched.count():
            folder.unlock()  # it is for the first of the processes
            _train_in_processes(request, folder)
            return

        from node_cli.cli.run_training import run_training

        run_training(request, folder, checkpoints)
    except RunFailedError as error:
        if launched.rank() == 0 and folder.status != "failed":
            _record(error, request, folder)
        raise
    finally:
        folder.unlock()


def _record(error: RunFailedError, request: Request, folder: RunFolder) -> None:
    try:
        folder.write_failure(request, str(error))
    except OSError as unwritten:  # the disk is full, say, and that is why it failed
        raise RunFailedError(f"{error}; nor could that be written down: {unwritten.strerror}") from error


def _num_processes(config: dict[str, Any]) -> int:
    return int(config["trainer"].get("devices", 1))


def _check_launch(request: Request) -> None:
    """Refuses what does not go with the processes that train together."""
    devices = _num_processes(request.config)
    if devices > 1 and request.config["device"] == "mps":
        raise ConfigError(f"trainer.devices={devices} needs device=cpu or device=cuda: Apple has one GPU at most")
    if not launched.is_one_of_several():
        return
    if devices not in (1, launched.local_count()):
        raise ConfigError(f"trainer.devices={devices}, but the launcher has started {launched.local_count()} processes")
    if not any(word.startswith("run_dir=") for word in request.overrides):
        raise ConfigError("run_dir is required: processes that a launcher starts need one folder, set run_dir=...")


def _train_in_processes(request: Request, folder: RunFolder) -> None:
    from node_cli.runs.launcher import run_in_processes

    trainer = request.config["trainer"]
    words = [word for word in request.overrides if not word.lstrip("+~").startswith(OF_THE_PARENT)]
    words += [f"run_dir={quoted(str(folder.path))}"]
    if request.config["resume"] is not None:
        words.append(f"resume={quoted(request.config['resume'])}")
    own = _own_files()
    options = [] if own is None else [f"--config-dir={own}"]
    sets_threads = request.config["num_threads"] is not None
    run_in_processes([*options, *words], trainer["devices"], trainer["max_restarts"], sets_threads=sets_threads)


def _own_files() -> str | None:
    """The folder of --config-dir."""
    return folder_of(HydraConfig.get().runtime.config_sources)


if __name__ == "__main__":
    main()
