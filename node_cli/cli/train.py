"""`node-train`: trains a Neural ODE from a config of parts, or a sweep of them with `-m`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from node_cli.cli.app import launch
from node_cli.cli.compose import CommandLine, Composed, checked_config, hydra_ready
from node_cli.cli.errors import bearing_streams
from node_cli.cli.overrides import Override, going_on, last_of, override, parse, quoted, texts_of
from node_cli.config import ConfigError, is_path, known_of, shown
from node_cli.runs.folder import Request, RunFolder
from node_cli.runs.moved_data import located
from node_cli.runs.outcome import RunFailedError
from node_cli.runs.resume import checkpoints_to_resume
from node_cli.runs.sweep import Sweep, Worker, damaged, folder_named, run_job
from node_cli.training import launched
from node_cli.training.stopping import Stopped


def main() -> None:
    """The entry point."""
    if launched.is_one_of_several():
        launched.end_with_parent()
    launch("train", run, expand=_meant, sweep=sweeping, needs_output=False)


def _meant(overrides: list[Override]) -> list[Override]:
    return with_overrides_of_run(with_overrides_of_sweep(overrides))


def with_overrides_of_run(overrides: list[Override]) -> list[Override]:
    """`resume=<path>` stands for all overrides of that run, in its folder; those typed now come on top.

    How the learning rate goes on is for one continuation: the next one has to say it again.

    Raises:
        ConfigError: there is no run at the path.
    """
    typed = {each.key: each for each in overrides}
    value = typed["resume"].given if "resume" in typed else "null"
    if value in ("null", "auto", ""):
        return overrides
    if not is_path(value):
        raise ConfigError(f"resume must be a run folder, a checkpoint file, auto or null, got {shown(value)}")
    folder = RunFolder.of(value)
    if "run_dir" in typed and Path(typed["run_dir"].given) != folder.path:
        raise ConfigError(f"run_dir cannot be set with resume={value}: a run continues in its own folder")
    typed["run_dir"] = override("run_dir", os.fspath(folder.path))
    typed["resume"] = override("resume", value)
    for key, place in located(folder.read_config(), folder).items():
        typed.setdefault(f"dataset.{key}", override(f"dataset.{key}", place))
    left = (*typed, "scheduler.on_resume")
    inherited = [each for each in parse(folder.read_overrides()) if each.key not in left and not each.is_of_sweep]
    _check_packages("resume", value, folder.path, inherited)
    return inherited + list(typed.values())


def with_overrides_of_sweep(overrides: list[Override]) -> list[Override]:
    """`sweep.resume=<folder>` stands for the overrides that the sweep was begun with; those typed now must be the same.

    Raises:
        ConfigError: there is no sweep in the folder, or it was begun with other overrides.
    """
    resume = last_of(overrides, "sweep.resume")
    if resume is None or resume.given == "null":
        return overrides
    path = Path(resume.given)
    begun, typed = parse(Sweep.read(path).overrides), [each for each in overrides if not each.is_of_sweep]
    if any(each.is_of_sweep for each in begun):
        raise damaged(path)
    packages = [each.text for each in begun if each.key == "packages"]
    if set(packages) - {each.text for each in typed}:
        _check_packages("sweep.resume", resume.given, path, begun)
    if {each.text for each in typed} - set(packages) and sorted(texts_of(typed)) != sorted(texts_of(begun)):
        texts = " ".join(texts_of(begun))
        raise ConfigError(f"sweep.resume: {path} was begun with other overrides: {texts}; leave yours out")
    return begun + [each for each in overrides if each.is_of_sweep]


def _check_packages(key: str, value: str, path: Path, begun: list[Override]) -> None:
    """Refuses packages that a folder names: its own overrides are not the user's.

    Raises:
        ConfigError: there are some.
    """
    packages = [each for each in begun if each.key == "packages"]
    if packages:
        again = going_on(key, Path(value), packages, None)
        raise ConfigError(f"{key}: {path} was begun with packages: if you trust them, name them again: {again}")


@contextmanager
def sweeping(line: CommandLine) -> Iterator[list[str]]:
    """Within it the jobs run, with further overrides; at its end the sweep is summed up.

    Raises:
        ConfigError: the folder cannot be written, exists, or holds other jobs.
        RunFailedError, Stopped: see `Sweep.running`.
    """
    with hydra_ready(line):
        jobs = line.jobs()
        asked = checked_config(jobs[0])["sweep"]
    launcher = last_of(line.overrides, "hydra/launcher")
    if launcher is not None and launcher.given == "submitit_slurm" and shutil.which("srun") is None:
        raise ConfigError(
            "hydra/launcher=submitit_slurm needs SLURM, and there is no srun here: start it where jobs are submitted, "
            "or take hydra/launcher=joblib"
        )
    path = Path(asked["resume"]) if asked["resume"] is not None else folder_named(asked["name"])
    typed, *of_jobs = ([each.text for each in job.overrides if not each.is_of_sweep] for job in [line, *jobs])
    sweep = Sweep(path, typed, of_jobs)
    sweep.begin() if asked["resume"] is None else sweep.check_same()
    with sweep.running(going_on("sweep.resume", path, line.overrides, line.extra_config_dir)):
        yield [f"hydra.sweep.dir={quoted(str(path))}"]


def run(composed: Composed) -> None:
    """Trains one config, or one job of a sweep."""
    overrides = [each.unforced() for each in composed.overrides]
    texts = [each.text for each in overrides if not each.is_of_sweep]
    request = Request(composed.config, texts, composed.choices)
    if composed.sweep_dir is not None:
        with bearing_streams(needs_output=False) if Worker.is_this() else nullcontext():
            run_job(request, Path(composed.sweep_dir), partial(train, own_files=composed.own_files))
        return
    if request.config["resume"] == "auto" and last_of(overrides, "run_dir") is None:
        raise ConfigError("resume=auto continues what run_dir holds, or starts there: set run_dir=... too")
    folder = RunFolder(Path(request.config["run_dir"]))
    try:
        train(request, folder, composed.own_files)
    except Stopped as stopped:
        if launched.is_one_of_several() or not folder.holds_run:  # whoever has started them says it; nothing goes on
            raise
        again = going_on("resume", folder.path, overrides, composed.own_files)
        raise Stopped(f"{stopped}; to go on: {again}", stopped.status) from stopped


def train(request: Request, folder: RunFolder, own_files: str | None) -> None:
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
            _train_in_processes(request, folder, own_files)
            return

        from node_cli.commands.training import run_training

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
    if last_of(parse(request.overrides), "run_dir") is None:
        raise ConfigError("run_dir is required: processes that a launcher starts need one folder, set run_dir=...")


def _train_in_processes(request: Request, folder: RunFolder, own_files: str | None) -> None:
    from node_cli.runs.launcher import run_in_processes

    trainer, resume = request.config["trainer"], request.config["resume"]
    overrides = [each for each in parse(request.overrides) if not known_of(each.key).of_each_run]
    overrides += [override("run_dir", str(folder.path)), *([] if resume is None else [override("resume", resume)])]
    options = [] if own_files is None else [f"--config-dir={own_files}"]
    run_in_processes(
        [*options, *texts_of(overrides)],
        trainer["devices"],
        trainer["max_restarts"],
        sets_threads=request.config["num_threads"] is not None,
    )


if __name__ == "__main__":
    main()
