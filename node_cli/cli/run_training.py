"""One training run from a sound config to a finished folder: build, train, sum up."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from node_cli.analysis.curves import write_curves
from node_cli.analysis.summary import final_table, summarize
from node_cli.build import build_loggers, build_problem, build_trainer, uses_solver
from node_cli.cli.errors import RunFailedError
from node_cli.config import ConfigError
from node_cli.loggers.base import Logger, Loggers
from node_cli.training.checkpoint import CheckpointError, Checkpoints, read_checkpoint
from node_cli.training.run_folder import Request, RunFolder
from node_cli.training.state import TrainingError
from node_cli.training.trainer import Trainer

log = logging.getLogger(__name__)

NOT_HYPERPARAMETERS = ("run_dir", "resume", "packages", "logger", "audit", "sweep", "num_threads")


def run_training(request: Request, folder: RunFolder, checkpoint: Path | None, loggers: Sequence[Logger] = ()) -> None:
    """Builds everything first; only what builds gets a folder. `loggers` come after those of the config.

    Raises:
        ConfigError: a part refuses its settings, or the checkpoint is damaged.
        RunFailedError: training could not go on.
    """
    started = time.time()
    trainer = build_trainer(request.config, build_problem(request.config))
    folder.lock()
    with _log_to(folder.log):
        if checkpoint is not None:
            _restore(trainer, checkpoint)
        try:
            _train(request, folder, trainer, checkpoint, started, loggers)
        except TrainingError as error:
            log.error("%s", error)
            raise RunFailedError(f"{error} (run folder: {folder.path})") from error


def _restore(trainer: Trainer, checkpoint: Path) -> None:
    try:
        trainer.load_state_dict(read_checkpoint(checkpoint))
    except CheckpointError as error:
        raise ConfigError(str(error)) from error


def _train(
    request: Request,
    folder: RunFolder,
    trainer: Trainer,
    checkpoint: Path | None,
    started: float,
    loggers: Sequence[Logger],
) -> None:
    if checkpoint is not None and trainer.is_done and folder.is_finished:
        log.info("%s is finished already; for more, set trainer.epochs or trainer.max_steps", folder.path)
        return
    resume_step = trainer.state.step if checkpoint is not None else None
    config = request.config
    logger = Loggers([*build_loggers(config, folder.path, resume_step).loggers, *loggers])
    try:
        folder.write_request(request)
        _announce(config, folder, trainer, checkpoint)
        _log_start(config, logger, trainer, is_new=checkpoint is None)
        evaluation = trainer.fit(logger, Checkpoints(folder.checkpoints, trainer.keep))
        summary = summarize(request, trainer, evaluation, started)
        logger.finish()
    finally:
        logger.close()
    write_curves(trainer.state.history, folder.curves, str(folder.path))
    folder.write_summary(summary)
    for line in final_table(summary, folder.path):
        log.info("%s", line)


def _announce(config: dict[str, Any], folder: RunFolder, trainer: Trainer, checkpoint: Path | None) -> None:
    name = type(trainer.model).__name__
    count = sum(p.numel() for p in trainer.model.parameters())
    log.info("%s, %s parameters, on %s; run folder %s", name, f"{count:,}", trainer.device, folder.path)
    if not uses_solver(trainer.model):
        log.info("solver and gradient have no part in this run: %s has no ODE block", name)
    if checkpoint is not None:
        log.info("continuing from %s at step %d of %d", checkpoint, trainer.state.step, trainer.total_steps)


def _log_start(config: dict[str, Any], logger: Loggers, trainer: Trainer, *, is_new: bool) -> None:
    logger.log_text("config", yaml.safe_dump(config, sort_keys=False))
    logger.log_hparams(_hyperparameters(config))
    if not is_new:
        return
    samples = next(trainer.dataset.train_batches(trainer.batch_size, trainer.seed, epoch=0))
    for name, picture in trainer.task.sample_pictures(samples).items():
        logger.log_image(0, f"train/{name}", picture)


def _hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """`model: OdeNet, model.width: 64, ...`: each part by its class, then its keys."""
    flat = {}
    for key, value in config.items():
        if key in NOT_HYPERPARAMETERS:
            continue
        flat[key] = value["_target_"].rpartition(".")[2] if isinstance(value, dict) else value
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": setting for name, setting in value.items() if not name.startswith("_")}
    return flat


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Messages go to the console as they stand and to `run.log` with their times."""
    console = logging.StreamHandler(sys.stdout)
    console.setFormatter(logging.Formatter("%(message)s"))
    console.addFilter(_not_in_the_way_of_the_bar)
    file = logging.FileHandler(path, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("node_cli")
    root.setLevel(logging.INFO)
    for handler in (console, file):
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in (console, file):
            root.removeHandler(handler)
            handler.close()


def _not_in_the_way_of_the_bar(record: logging.LogRecord) -> bool:
    """Where the progress bar is shown, the line of each epoch goes to the file only."""
    is_epoch_line = record.name == "node_cli.training.trainer" and record.levelno == logging.INFO
    return not (is_epoch_line and sys.stderr.isatty())
