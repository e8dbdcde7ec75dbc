"""One training run from a sound config to a finished folder: build, train, sum up."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from node_cli.build import build_loggers, build_problem, build_trainer
from node_cli.config import ConfigError, known_of
from node_cli.files import UnwrittenError, closed_at_the_end
from node_cli.loggers.base import Logger, Loggers, Resume
from node_cli.models.ode_block import ode_blocks
from node_cli.runs.curves import write_curves
from node_cli.runs.folder import Request, RunFolder
from node_cli.runs.identity import check_identity, identity
from node_cli.runs.log import held_back, log_to
from node_cli.runs.moved_data import data_moved
from node_cli.runs.outcome import RunFailedError, UnwrittenRunError
from node_cli.runs.summary import final_table, summarize
from node_cli.tasks.task import Task
from node_cli.training.checkpoint import CheckpointError, Checkpoints, OtherRunError, read_first_sound
from node_cli.training.machine import chosen_device
from node_cli.training.payload import refusal
from node_cli.training.processes import joined
from node_cli.training.records import last_losses
from node_cli.training.starting import start_from
from node_cli.training.state import TrainingError
from node_cli.training.stopping import Stopped, Stopping
from node_cli.training.trainer import Trainer

log = logging.getLogger(__name__)


def run_training(
    request: Request, folder: RunFolder, checkpoints: Sequence[Path], loggers: Sequence[Logger] = ()
) -> None:
    """Builds everything first; only what builds gets a folder. `loggers` come after those of the config.

    The run continues from the first of `checkpoints` that is sound, and starts where there are none. Of several
    processes the first one keeps the folder; the others follow it.

    Raises:
        ConfigError: a part refuses its settings, or no checkpoint is sound.
        RunFailedError: training could not go on.
        UnwrittenRunError: its records could not be written.
        Stopped: a signal or the clock asked for it; all is saved.
    """
    started = time.time()
    with Stopping() as stopping, joined(chosen_device(request.config["device"])) as processes:
        with stopping.at_once(), held_back() as earlier:
            problem = build_problem(request.config, is_new=not checkpoints)
            start = "" if checkpoints or not processes.is_first else _start(problem.model, request.config)
            trainer = build_trainer(request.config, problem, processes)
        if not processes.is_first:
            _follow(trainer, stopping)
            return
        folder.lock()
        try:
            with log_to(folder.log, earlier):
                if start:
                    log.info("%s", start)
                path = _restore(trainer, request.config, folder, checkpoints)
                try:
                    _lead(request, folder, trainer, path, started, loggers, stopping)
                except Stopped as stopped:
                    log.info("%s", stopped)
                    raise
                except (TrainingError, OSError) as error:
                    stopping.failed()
                    log.error("%s", error)
                    is_unwritten = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
                    kind = UnwrittenRunError if is_unwritten else RunFailedError
                    raise kind(f"{error} (run folder: {folder.path})") from error
        except UnwrittenError as error:  # of the log itself
            raise UnwrittenRunError(str(error)) from error


def _start(model: nn.Module, config: Mapping[str, Any]) -> str:
    """What the model was given to start from, in words; empty: nothing but its seed."""
    source, skip = config.get("init_from"), config.get("init_skip", [])
    if source is None:
        if skip:
            raise ConfigError(f"init_skip={skip} has no effect without init_from: set init_from=... too")
        return ""
    return start_from(model, source, skip)


def _restore(trainer: Trainer, config: dict[str, Any], folder: RunFolder, checkpoints: Sequence[Path]) -> Path | None:
    """The checkpoint that the trainer was brought to, if any; the other processes get the same."""
    path, payload = None, None
    unknown: list[str] = []
    moved = data_moved(config, folder) if checkpoints else []

    def check(path: Path, payload: Mapping[str, Any]) -> None:
        parts = (trainer.model, trainer.average, trainer.evaluated, trainer.optimizer, trainer.rate.state_dict())
        problem = refusal(payload, *parts)
        if problem:
            raise CheckpointError(f"{path} {problem}")
        note = check_identity(path, payload, config, trainer.dataset.digest)
        if note and moved:
            raise OtherRunError(f"{note}, so {moved[0].partition(':')[0]} must stay as it was")
        unknown.append(note)

    if checkpoints:
        path, payload = read_first_sound(checkpoints, check)
        trainer.load_state_dict(payload)
    for line in [*moved, *unknown]:
        if line:
            log.warning("%s", line)
    if trainer.processes.count > 1:
        weights = {name: tensor.cpu() for name, tensor in trainer.model.state_dict().items()}
        trainer.processes.from_first((payload, weights))
    return path


def _follow(trainer: Trainer, stopping: Stopping) -> None:
    """What the first process does, without a word and without a file."""
    logging.getLogger("node_cli").addHandler(logging.NullHandler())
    start: tuple[dict[str, Any] | None, dict[str, Any]] = trainer.processes.from_first((None, {}))
    payload, weights = start
    trainer.model.load_state_dict(weights)
    if payload is not None:
        trainer.load_state_dict(payload)
    if trainer.processes.from_first(False):
        return
    try:
        trainer.fit(Loggers([]), None, stopping)
    except TrainingError as error:
        stopping.failed()
        raise RunFailedError(str(error)) from error


def _lead(
    request: Request,
    folder: RunFolder,
    trainer: Trainer,
    checkpoint: Path | None,
    started: float,
    loggers: Sequence[Logger],
    stopping: Stopping,
) -> None:
    if trainer.processes.from_first(checkpoint is not None and trainer.is_done and folder.is_finished):
        log.info("%s is finished already; for more, set trainer.epochs or trainer.max_steps", folder.path)
        return
    config, state, resume = request.config, trainer.state, None
    if checkpoint is not None:
        checkpoints = Checkpoints(folder.checkpoints, trainer.keep, identity(config, trainer.dataset))
        checkpoints.go_back_to(checkpoint, state.step, trainer.best_weights)
        resume = Resume(state.step, state.epoch, state.recorded)
    logger = Loggers([*build_loggers(config, folder.path, resume).loggers, *loggers])
    with closed_at_the_end(logger.close):
        folder.write_request(request)
        _announce(config, folder, trainer, checkpoint)
        _log_start(config, logger, trainer.task)
        checkpoints = Checkpoints(folder.checkpoints, trainer.keep, identity(config, trainer.dataset))
        evaluation = trainer.fit(logger, checkpoints, stopping)
        summary = summarize(request, trainer, evaluation, started)
        logger.finish()
    write_curves(trainer.state.history, folder.curves, str(folder.path))
    folder.write_summary(summary)
    for line in final_table(summary, folder.path, trainer.task.shown(evaluation.details)):
        log.info("%s", line)


def _announce(config: dict[str, Any], folder: RunFolder, trainer: Trainer, checkpoint: Path | None) -> None:
    name = type(trainer.model).__name__
    count = sum(p.numel() for p in trainer.model.parameters())
    log.info("%s, %s parameters, on %s; run folder %s", name, f"{count:,}", trainer.device, folder.path)
    if trainer.freeze:
        count = sum(p.numel() for p in trainer.model.parameters() if not p.requires_grad)
        log.info("not trained: %s (%s parameters)", ", ".join(trainer.freeze), f"{count:,}")
    if not ode_blocks(trainer.model):
        log.info("solver and gradient have no part in this run: %s has no ODE block", name)
    for key, (value, why) in trainer.task.chosen().items():
        log.info("%s=auto takes %s: %s", key, value, why)
    if checkpoint is not None:
        log.info("continuing from %s at step %d of %d", checkpoint, trainer.state.step, trainer.total_steps)
    if trainer.rate.change:
        log.info("%s; %s", last_losses(trainer.state.history), trainer.rate.change)


def _log_start(config: dict[str, Any], logger: Loggers, task: Task) -> None:
    logger.log_text("config", yaml.safe_dump(config, sort_keys=False))
    logger.log_metric_names(list(dict.fromkeys(["loss", *task.metric_names])))
    logger.log_hparams(_hyperparameters(config) | {key: value for key, (value, _) in task.chosen().items()})


def _hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """`model: OdeNet, model.width: 64, ...`: each part by its class, then its keys."""
    flat = {}
    for key, value in config.items():
        if not known_of(key).is_hyperparameter:
            continue
        flat[key] = value["_target_"].rpartition(".")[2] if isinstance(value, dict) else value
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": setting for name, setting in value.items() if not name.startswith("_")}
    return flat
