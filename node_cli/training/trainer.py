"""The training loop: epochs of steps, a validation after each, one test at the very end."""

from __future__ import annotations

import gc
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from node_cli.datasets.base import Dataset
from node_cli.loggers.base import Logger
from node_cli.loggers.progress import Progress
from node_cli.ode.solution import SolveError
from node_cli.tasks.base import Evaluation, Task
from node_cli.training.checkpoint import Checkpoints
from node_cli.training.evaluation import evaluate
from node_cli.training.failures import check_fallback
from node_cli.training.schedules import Schedule
from node_cli.training.solve_monitor import SolveMonitor
from node_cli.training.state import TrainingError, TrainState
from node_cli.training.update import Updater

log = logging.getLogger(__name__)

SHOWN_IN_BAR = {"loss": "train/loss", "accuracy": "train/accuracy", "nfe": "nfe/forward"}
SHOWN_IN_LINE = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
# Linux: "5" written to the one sets the highest resident size, VmHWM in the other, back to the present one (proc(5)).
CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
FAILURES_IN_LINE = ("val/failed", "solver/skipped", "solver/fallbacks")


@dataclass(kw_only=True)
class Trainer:
    """Trains `model` for `epochs` or `max_steps`, whichever ends first, and keeps the best validation's weights.

    `audit` is called with the number of every finished epoch; what it returns is recorded.

    Raises:
        ValueError: a setting out of range, or a fallback that the gradient does not go with.
    """

    model: nn.Module
    task: Task
    dataset: Dataset
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    seed: int
    precision: str
    epochs: int | None
    max_steps: int | None
    batch_size: int
    eval_batch_size: int
    clip_norm: float | None
    max_skipped: int
    patience: int | None
    log_every_steps: int
    histograms_every_epochs: int
    save_every_steps: int | None
    keep: int
    audit: Callable[[int], dict[str, float]]

    def __post_init__(self) -> None:
        _require_in_range(self)
        check_fallback(self.model)
        self.device = next(self.model.parameters()).device
        self.peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.steps_per_epoch = self.dataset.num_train_batches(self.batch_size)
        bounds = [self.epochs * self.steps_per_epoch if self.epochs else None, self.max_steps]
        self.total_steps = min(bound for bound in bounds if bound is not None)
        self.monitor = SolveMonitor(self.model)
        self.updater = Updater(
            model=self.model,
            task=self.task,
            optimizer=self.optimizer,
            monitor=self.monitor,
            precision=self.precision,
            clip_norm=self.clip_norm,
            max_skipped=self.max_skipped,
        )
        self.state = TrainState()
        self.best_weights: dict[str, Tensor] = {}

    @property
    def is_done(self) -> bool:
        """Whether the last epoch is closed, or the validation has not improved for `patience` epochs."""
        waited = self.state.epoch - self.state.best_epoch
        patience_over = self.patience is not None and waited >= self.patience
        return self.state.batch == 0 and (self.state.step >= self.total_steps or patience_over)

    @property
    def _epoch_is_over(self) -> bool:
        return self.state.batch == self.steps_per_epoch or self.state.step >= self.total_steps

    def fit(self, logger: Logger, checkpoints: Checkpoints) -> Evaluation:
        """Trains to the end and judges the best weights on the test split, once.

        Raises:
            TrainingError: a solve failed, or a loss or gradient was not finite.
        """
        reset_peak_memory(self.device)
        with Progress(self.total_steps, self.state.step, enabled=True) as progress:
            while not self.is_done:
                self._train_epoch(logger, checkpoints, progress)
                self._finish_epoch(logger, checkpoints)
        return self._test(logger)

    def state_dict(self) -> dict[str, Any]:
        """All that an exact continuation needs, in plain containers."""
        cuda = torch.cuda.get_rng_state_all() if self.device.type == "cuda" else []
        return {
            "model": self.model.state_dict(),
            "best_weights": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "state": asdict(self.state),
            "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
            "environment": self.environment(),
        }

    def load_state_dict(self, payload: Mapping[str, Any]) -> None:
        """Takes up a run where `state_dict` was called; what differs around it is named in the log."""
        self.model.load_state_dict(payload["model"])
        self.best_weights = dict(payload["best_weights"])
        self.optimizer.load_state_dict(payload["optimizer"])
        self.state = TrainState(**payload["state"])
        torch.set_rng_state(payload["random"]["cpu"].cpu())
        if payload["random"]["cuda"] and self.device.type == "cuda":
            torch.cuda.set_rng_state_all([state.cpu() for state in payload["random"]["cuda"]])
        environment = self.environment()
        for key, was in payload["environment"].items():
            if environment[key] != was:
                changed = f"{key} was {was} and is {environment[key]}"
                log.warning("%s: figures may differ in the last digits from here on", changed)

    def environment(self) -> dict[str, str]:
        """What the last digits of a result depend on beside the config."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else self.device.type
        return {"torch": str(torch.__version__), "num_threads": str(torch.get_num_threads()), "device": name}

    def _train_epoch(self, logger: Logger, checkpoints: Checkpoints, progress: Progress) -> None:
        """From wherever in the epoch the run is to its end, or to the last step of the run."""
        self.model.train()
        for batch in self.dataset.train_batches(self.batch_size, self.seed, self.state.epoch, self.state.batch):
            if self._epoch_is_over:
                break
            self._set_rate()
            started, num_failed = time.perf_counter(), self.state.num_failed
            figures = self.updater.update(batch, self.state)
            seconds = time.perf_counter() - started
            self.state.seconds += seconds
            self.state.batch += 1
            self.state.step += 1
            if figures:
                figures["time/step_ms"] = 1000 * seconds
                self._add_to_sums(figures, len(batch.targets))
            self._log_step(logger, figures, has_failed=self.state.num_failed > num_failed)
            shown = {name: figures[tag] for name, tag in SHOWN_IN_BAR.items() if tag in figures}
            progress.update(len(batch.targets), **shown)
            save_is_due = self.save_every_steps and self.state.step % self.save_every_steps == 0
            if save_is_due and not self._epoch_is_over:  # an epoch's end saves too, once its validation is recorded
                self._save(logger, checkpoints, is_best=False)

    def _set_rate(self) -> None:
        rate = self.schedule(self.state.step / self.total_steps)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * rate

    def _log_step(self, logger: Logger, figures: Mapping[str, float], *, has_failed: bool) -> None:
        """Records every so many steps, and every batch whose solve failed; one that was skipped has no figures."""
        if self.state.step % self.log_every_steps == 0 or self.state.step == 1 or has_failed:
            others = {**self.updater.failure_counts(self.state), "memory/peak_mb": peak_memory_mb(self.device)}
            logger.log_scalars(self.state.step, {**figures, **others})

    def _add_to_sums(self, figures: Mapping[str, float], samples: int) -> None:
        sums = self.state.sums
        for tag, value in figures.items():
            sums[tag] = sums.get(tag, 0.0) + value * samples
        sums["samples"] = sums.get("samples", 0.0) + samples

    def _finish_epoch(self, logger: Logger, checkpoints: Checkpoints) -> None:
        """Validates, records, and saves; the checkpoint stands for the start of the next epoch."""
        validation, figures = self._evaluate("val")
        figures |= self.audit(self.state.epoch + 1)
        self.monitor.take()  # copies of the model report to it too
        rank = list(self.task.rank(validation.metrics))
        is_best = rank > self.state.best
        self._close_epoch(rank, is_best, figures)
        logger.log_scalars(self.state.step, {**figures, "epoch": self.state.epoch})
        if self.histograms_every_epochs and self.state.epoch % self.histograms_every_epochs == 0:
            self._log_histograms(logger)
        self.state.step_sizes = {}
        epochs = math.ceil(self.total_steps / self.steps_per_epoch)
        log.info(epoch_line(self.state.history[-1], epochs, is_best))
        self._save(logger, checkpoints, is_best=is_best)

    def _close_epoch(self, rank: list[float], is_best: bool, figures: Mapping[str, float]) -> None:
        state = self.state
        samples = state.sums.pop("samples", 0.0)  # none if every batch was skipped: then there are no sums either
        means = {tag: total / samples for tag, total in state.sums.items()}
        state.epoch, state.batch, state.sums = state.epoch + 1, 0, {}
        counts = self.updater.failure_counts(state)
        state.history.append({"epoch": state.epoch, "step": state.step, **means, **counts, **figures})
        if is_best:
            state.best, state.best_epoch = rank, state.epoch
            self.best_weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _evaluate(self, split: str) -> tuple[Evaluation, dict[str, float]]:
        """The evaluation of one split, and its figures by their tags."""
        try:
            evaluation = evaluate(self.model, self.task, self.dataset, split, self.eval_batch_size, self.precision)
        except SolveError as error:
            raise TrainingError(f"judging the {split} split after step {self.state.step}: {error}") from error
        costs = self.monitor.take()
        figures = {f"{split}/{name}": value for name, value in evaluation.metrics.items()}
        return evaluation, figures | ({f"nfe/{split}": costs.nfe_forward} if costs else {})

    def _test(self, logger: Logger) -> Evaluation:
        self.model.load_state_dict(self.best_weights)
        evaluation, figures = self._evaluate("test")
        step = self.state.step + 1  # after the last checkpoint: a run killed here and resumed takes its records back
        logger.log_scalars(step, figures)
        batches = self.dataset.batches("test", self.eval_batch_size)
        for name, picture in self.task.result_pictures(batches, evaluation).items():
            logger.log_image(step, f"test/{name}", picture)
        return evaluation

    def _log_histograms(self, logger: Logger) -> None:
        for name, parameter in self.model.named_parameters():
            logger.log_histogram(self.state.step, f"weights/{name}", parameter.detach())
        sizes = self.state.step_sizes
        tagged = {f"solver/step_size/{name}": steps for name, steps in sizes.items()} if len(sizes) > 1 else {}
        for tag, steps in {"solver/step_size": list(chain(*sizes.values())), **tagged}.items():
            if steps:
                logger.log_histogram(self.state.step, tag, torch.tensor(steps))

    def _save(self, logger: Logger, checkpoints: Checkpoints, *, is_best: bool) -> None:
        logger.flush()
        checkpoints.save(self.state_dict(), self.state.step, is_best=is_best)


def epoch_line(figures: Mapping[str, float], epochs: int, is_best: bool) -> str:
    """One line about a finished epoch of `epochs`."""
    parts = [f"epoch {figures['epoch']:.0f}/{epochs}"]
    parts += [f"{tag} {figures[tag]:.4f}" for tag in SHOWN_IN_LINE if tag in figures]
    parts += [f"{tag} {figures[tag]:.1f}" for tag in ("nfe/forward", "nfe/backward") if figures.get(tag)]
    parts += [f"{tag} {figures[tag]:.0f}" for tag in FAILURES_IN_LINE if figures.get(tag)]
    return "  ".join(parts) + ("  best so far" if is_best else "")


def reset_peak_memory(device: torch.device) -> None:
    """Lets `peak_memory_mb` speak of what comes after, where the system can: CUDA and Linux."""
    gc.collect()  # what an earlier run of this process left in cycles
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        CLEAR_REFS.write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that was in use at once: of the device, or of the whole process on a processor."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with suppress(OSError, StopIteration):
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _require_in_range(trainer: Trainer) -> None:
    if trainer.epochs is None and trainer.max_steps is None:
        raise ValueError("epochs and max_steps are both null: set one of them")
    at_least_one = ("epochs", "max_steps", "batch_size", "eval_batch_size", "patience", "log_every_steps")
    for key in (*at_least_one, "save_every_steps", "keep"):
        value = getattr(trainer, key)
        if value is not None and value < 1:
            raise ValueError(f"{key} must be at least 1, got {value}")
    if trainer.clip_norm is not None and not trainer.clip_norm > 0:
        raise ValueError(f"clip_norm must be positive or null, got {trainer.clip_norm}")
    for key in ("max_skipped", "histograms_every_epochs"):
        if getattr(trainer, key) < 0:
            raise ValueError(f"{key} must be 0 or more, got {getattr(trainer, key)}")
