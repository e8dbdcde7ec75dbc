"""The training loop: epochs of steps, a validation after each, one test at the very end."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from node_cli.advice import in_keys
from node_cli.batch import Batch, num_samples
from node_cli.datasets.dataset import Dataset
from node_cli.loggers.base import Logger
from node_cli.loggers.progress import Progress
from node_cli.models.ode_block import ode_blocks
from node_cli.ode.solution import SolveError
from node_cli.tasks.task import Task
from node_cli.training.checkpoint import Checkpoints, load_into
from node_cli.training.evaluation import Evaluation, evaluate, is_finite, rank_of, rank_of_epoch
from node_cli.training.failures import check_fallback, state_beside_weights
from node_cli.training.learning_rate import LearningRate
from node_cli.training.machine import environment, name_changes, random_state, set_random_state
from node_cli.training.memory import peak_memory_mb, reporting_out_of_memory, reset_peak_memory
from node_cli.training.processes import Processes
from node_cli.training.ranges import require_in_range, require_no_more_done
from node_cli.training.records import epoch_line, log_figures, log_histograms, log_results, shown_in_bar
from node_cli.training.schedules import Schedule
from node_cli.training.solve_monitor import SolveMonitor
from node_cli.training.starting import set_to_train
from node_cli.training.state import TrainingError, TrainState
from node_cli.training.stopping import NO_TIME, STATUS, TIME_IS_UP, StopAskedError, Stopped, Stopping, reason
from node_cli.training.update import Update, Updater

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Trainer:
    """Trains `model` for `epochs` or `max_steps`, whichever ends first, and keeps the best validation's weights.

    `audit` is called after every epoch with its number and the progress of the run; what it returns is recorded. If
    several `processes` train together, each has a trainer, and only the first one has loggers and checkpoints.

    Raises:
        ValueError: a setting is out of range, or the gradient does not work with the solver's fallback.
    """

    model: nn.Module
    task: Task
    dataset: Dataset
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    on_resume: str
    processes: Processes
    seed: int
    precision: str
    epochs: int | None
    updates_per_epoch: int | None
    max_steps: int | None
    max_seconds: float | None
    batch_size: int
    eval_batch_size: int
    clip_norm: float | None
    on_bad_step: str
    spike_factor: float | None
    max_skipped: int
    average_decay: float | None
    patience: int | None
    log_every_steps: int
    histograms_every_epochs: int
    figures_every_epochs: int
    save_every_steps: int | None
    keep: int
    devices: int
    max_restarts: int
    freeze: list[str]
    audit: Callable[[int, float], dict[str, float]]

    def __post_init__(self) -> None:
        require_in_range(vars(self))
        check_fallback(self.model)
        self.device = next(self.model.parameters()).device
        self.steps_per_epoch = self.updates_per_epoch or self.dataset.num_batches("train", self.batch_size)
        bounds = [self.epochs * self.steps_per_epoch if self.epochs else None, self.max_steps]
        self.total_steps = min(bound for bound in bounds if bound is not None)
        for block in ode_blocks(self.model).values():
            block.planned_solves = self.total_steps
        self.rate = LearningRate(self.schedule, self.optimizer, self.total_steps, self.on_resume)
        self.monitor = SolveMonitor(self.model)
        self.average: AveragedModel | None = None
        if self.average_decay is not None:
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.average_decay))
        self.updater = Updater(**{field.name: getattr(self, field.name) for field in fields(Updater)})
        self.state = TrainState()
        self.best_weights: dict[str, Tensor] = {}
        self._stopping = Stopping()

    @property
    def is_done(self) -> bool:
        """Whether the last epoch has ended, or the validation has not improved for `patience` epochs."""
        patience_over = self.patience is not None and self.state.epoch - self.state.best_epoch >= self.patience
        return self.state.batch == 0 and (self.state.step >= self.total_steps or patience_over)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated: the one with averaged weights, if they are averaged."""
        return self.model if self.average is None else self.average.module

    @property
    def progress(self) -> float:
        """How much of the run is done, 0 to 1."""
        return self.state.step / self.total_steps

    @property
    def _epoch_is_over(self) -> bool:
        return self.state.batch == self.steps_per_epoch or self.state.step >= self.total_steps

    def fit(self, logger: Logger, checkpoints: Checkpoints | None, stopping: Stopping | None = None) -> Evaluation:
        """Trains to the end and evaluates the best weights on the test split, once.

        Raises:
            TrainingError: a solve failed, a loss or gradient was not finite, memory or the disk was full.
            Stopped: a signal that `stopping` heard, or the clock, asked for it; everything is saved.
        """
        self._stopping = stopping or self._stopping
        reset_peak_memory(self.device)
        with Progress(self.total_steps, self.state.step, enabled=self.processes.is_first) as progress:
            try:
                while not self.is_done:
                    self._train_epoch(logger, checkpoints, progress)
                    self._finish_epoch(logger, checkpoints)
                return self._test(logger)
            except StopAskedError as asked:
                number = asked.args[0]
        if number == TIME_IS_UP and not Stopping.got_on:  # nor would the same command
            raise TrainingError(f"trainer.max_seconds={self.max_seconds:g} {NO_TIME}")
        if not self.is_done:
            self._save(logger, checkpoints, is_best=False, is_last=True)
        where = f"after step {self.state.step} of {self.total_steps}, which is saved"
        raise Stopped(f"stopped by {reason(number)} {where}", STATUS[number])

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact continuation needs, in plain containers; all processes must call it."""
        own = {"random": random_state(self.device), "beside_weights": state_beside_weights(self.model)}
        return {
            "model": self.model.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "best_weights": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "learning_rate": self.rate.state_dict(),
            "state": self.state.copied(),
            "processes": self.processes.gathered(own),
            "environment": environment(self.device, self.processes.count),
        }

    def load_state_dict(self, payload: Mapping[str, Any]) -> None:
        """Continues from what `state_dict` returned; the log names what has changed in the environment.

        Raises:
            CheckpointError: the weights are those of another model.
            ContinuationError: the run cannot continue with this length, learning rate or task.
        """
        load_into(self.model, payload["model"])
        if self.average is not None:
            self.average.load_state_dict(payload["average"])
        self.best_weights = dict(payload["best_weights"])
        self.optimizer.load_state_dict(payload["optimizer"])
        self.state = TrainState(**payload["state"])
        if self.state.best_epoch:  # as validations are compared now: an earlier version may have done it otherwise
            self.state.best = rank_of_epoch(self.task, self.state.history[self.state.best_epoch - 1])
        require_no_more_done(self.state, self.epochs, self.max_steps, self.steps_per_epoch)
        self.rate.load_state_dict(payload.get("learning_rate"), self.state.step)
        known, rank = payload["processes"], self.processes.rank
        if rank < len(known):
            set_random_state(known[rank]["random"], self.device)
        # Of another number of processes, all start from the same step sizes, as those that are in step must.
        like = known[rank if len(known) == self.processes.count else 0]
        self.model.load_state_dict(like["beside_weights"], strict=False)
        name_changes(payload["environment"], environment(self.device, self.processes.count))

    def _train_epoch(self, logger: Logger, checkpoints: Checkpoints | None, progress: Progress) -> None:
        """From the current batch to the end of the epoch, or to the last step of the run."""
        set_to_train(self.model, self.freeze)
        place = (self.seed, self.state.epoch, self.state.batch)
        for batch in self.dataset.train_batches(self.batch_size, *place, count=self.steps_per_epoch):
            if self._epoch_is_over:
                break
            self._stop_if_asked()
            self.rate.set(self.state.step)
            if self.task.phase(self.progress) != self.task.phase(max(0, self.state.step - 1) / self.total_steps):
                self.updater.forget()
            started, num_failed = time.perf_counter(), self.state.num_failed
            update = self.updater.update(batch, self.state, self.progress)
            if update is not None and self.average is not None:
                self.average.update_parameters(self.model)
            seconds = time.perf_counter() - started
            self._stopping.took(seconds)
            self.state.seconds += seconds
            self.state.batch += 1
            self.state.step += 1
            Stopping.got_on = True
            if update is not None:
                update.costs["time/step_ms"] = 1000 * seconds
                self.state.add(*update, samples=num_samples(batch))
            self._log_step(logger, update, has_failed=self.state.num_failed > num_failed)
            progress.advance(num_samples(batch), shown_in_bar(update) if update else {})
            if self.state.step == 1 and logger.takes_images:  # only now, as it imports matplotlib
                log_figures(logger, self.task.sample_figures(batch), "train", step=0)
            save_is_due = self.save_every_steps and self.state.step % self.save_every_steps == 0
            if save_is_due and not self._epoch_is_over:  # an epoch's end saves too, once its validation is recorded
                self._save(logger, checkpoints, is_best=False)

    def _stop_if_asked(self) -> None:
        if asked := self.processes.largest(self._stopping.asked_by(self.max_seconds)):
            raise StopAskedError(asked)

    def _log_step(self, logger: Logger, update: Update | None, *, has_failed: bool) -> None:
        """Records every `log_every_steps` steps, and every batch that failed; `update` is None if it was skipped."""
        if self.state.step % self.log_every_steps == 0 or self.state.step == 1 or has_failed:
            values = {} if update is None else update.means | update.costs
            others = {**self.updater.failure_counts(self.state), "memory/peak_mb": peak_memory_mb(self.device)}
            logger.log_scalars(self.state.step, {**values, **others})
            self.state.recorded = self.state.step

    def _finish_epoch(self, logger: Logger, checkpoints: Checkpoints | None) -> None:
        """Validates, records and saves; the checkpoint stands at the start of the next epoch."""
        self.processes.broadcast_buffers(self.model)
        validation = self._evaluate(self.evaluated, "val")
        values = validation.values() | self.audit(self.state.epoch + 1, self.progress)
        rank = rank_of(self.task, validation.metrics)
        is_best = rank > self.state.best and is_finite(rank, f"step {self.state.step}", self.on_bad_step)
        self.state.close_epoch(self.updater.failure_counts(self.state) | values)
        if is_best:
            self.state.best, self.state.best_epoch = rank, self.state.epoch
            self.best_weights = {name: tensor.clone() for name, tensor in self.evaluated.state_dict().items()}
        logger.log_scalars(self.state.step, {**values, "epoch": self.state.epoch})
        self.state.recorded = self.state.step
        if self.histograms_every_epochs and self.state.epoch % self.histograms_every_epochs == 0:
            log_histograms(logger, self.model, self.state)
        if self.figures_every_epochs and self.state.epoch % self.figures_every_epochs == 0:
            self._log_figures(logger, self.evaluated, validation, self.state.step)
        self.state.step_sizes = {}
        epochs = math.ceil(self.total_steps / self.steps_per_epoch)
        log.info(epoch_line(self.state.history[-1], self.task.objective[0], epochs, is_best))
        self._save(logger, checkpoints, is_best=is_best, is_last=self.is_done)
        Stopping.got_on = True

    def _evaluate(self, model: nn.Module, split: str) -> Evaluation:
        where = f"evaluating the {split} split after step {self.state.step}"
        how = (self.eval_batch_size, self.precision, self.processes, self._until_asked)
        try:
            with reporting_out_of_memory(where, "Lower trainer.eval_batch_size"):
                return evaluate(model, self.task, self.dataset, split, *how, with_details=split == "test")
        except SolveError as error:
            raise TrainingError(f"{where}: {self.updater.growth()}{in_keys(error)}") from error

    def _until_asked(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, until the run is asked to stop; the evaluation is then repeated when the run is continued."""
        for batch in batches:
            started = time.perf_counter()
            self._stop_if_asked()
            yield batch
            self._stopping.took(time.perf_counter() - started)

    def _test(self, logger: Logger) -> Evaluation:
        if not self.best_weights:
            raise TrainingError("no validation of this run was finite: lower optimizer.lr")
        self.model.load_state_dict(self.best_weights)
        evaluation = self._evaluate(self.model, "test")
        step = self.state.step + 1  # after the last checkpoint: a run killed here takes its records back
        if self.processes.is_first:
            logger.log_scalars(step, evaluation.values())
        self._log_figures(logger, self.model, evaluation, step)
        return evaluation

    def _log_figures(self, logger: Logger, model: nn.Module, evaluation: Evaluation, step: int) -> None:
        """All processes call it: they may have to solve together."""
        if self.processes.from_first(logger.takes_images):
            log_results(logger, self.task, model, self.dataset, evaluation, step)
            self.monitor.take()

    def _save(self, logger: Logger, checkpoints: Checkpoints | None, *, is_best: bool, is_last: bool = False) -> None:
        """Writes a checkpoint. If the disk is full, the next one may succeed; only the last one must be written."""
        started, payload = time.perf_counter(), self.state_dict()
        if checkpoints is not None:
            try:
                logger.flush()
                checkpoints.save(payload, self.state.step, is_best=is_best)
            except OSError as error:
                what = f"the checkpoint after step {self.state.step} could not be written ({error.strerror or error})"
                if is_last:
                    raise TrainingError(f"{what}: make room for {checkpoints.folder}, and resume the run") from error
                log.warning("%s; training goes on, and the checkpoints before it stay", what)
        self._stopping.took(time.perf_counter() - started)
