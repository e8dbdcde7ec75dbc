"""A model evaluated on one split, for every command: the only loop over its batches."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from node_cli.batch import Batch, concatenate, independent_generator, num_samples, take
from node_cli.datasets.dataset import Dataset
from node_cli.ode.solution import SolveError
from node_cli.tasks.task import FAILED, Task
from node_cli.training.failures import on_failure
from node_cli.training.processes import ALONE, Processes
from node_cli.training.solve_monitor import SolveMonitor
from node_cli.training.state import ContinuationError, TrainingError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """A model evaluated on one split: the metrics, further results in plain containers, and the rows predicted.

    If failed solves are skipped, the metric `failed` counts the samples concerned, and the rows `failed` mark them.
    `nfe` is the number of evaluations of vector fields for one batch; None: nothing was solved.
    """

    split: str
    metrics: dict[str, float]
    details: dict[str, Any]
    rows: Batch
    nfe: float | None

    def values(self) -> dict[str, float]:
        """The metrics and the NFE by their tags."""
        values = {f"{self.split}/{name}": value for name, value in self.metrics.items()}
        return values if self.nfe is None else values | {f"nfe/{self.split}": self.nfe}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The context that vector fields and layers are evaluated in; under bfloat16, ODE states keep float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def evaluate(
    model: nn.Module,
    task: Task,
    dataset: Dataset,
    split: str,
    batch_size: int,
    precision: str,
    processes: Processes = ALONE,
    watch: Callable[[Iterator[Batch]], Iterator[Batch]] = iter,
    *,
    with_details: bool = True,
) -> Evaluation:
    """Evaluates `model` on a split; several processes shard each of its batches, which pass through `watch`.

    Raises:
        SolveError: a solve failed; unless the solver's `on_failure` is `raise`, that of every sample alone.
        ValueError: the metrics are not those that the task names.
    """
    monitor = SolveMonitor(model)
    batches = watch(dataset.batches(split, batch_size))
    rows = concatenate(list(predictions(model, task, batches, precision, processes)))
    nfe = monitor.take(dataset.num_batches(split, batch_size)).scalars().get("nfe/forward")
    with torch.no_grad():
        metrics = task.metrics(dataset.splits[split], rows)
        details = task.details(model, dataset.splits[split], rows) if with_details else {}
        if with_details and "train" in dataset.splits:
            details = {**details, **task.fit_details(model, dataset.splits)}
    if set(metrics) != set(task.metric_names):
        names = ", ".join(task.metric_names)
        raise ValueError(f"{type(task).__name__}.metrics must give {names}, got {', '.join(metrics)}")
    if FAILED in rows:
        metrics[FAILED] = int(rows[FAILED].sum().item())
    return Evaluation(split, metrics, details, rows, nfe)


def predictions(
    model: nn.Module,
    task: Task,
    batches: Iterable[Batch],
    precision: str,
    processes: Processes = ALONE,
    *,
    marks_failed: bool = False,
) -> Iterator[Batch]:
    """The rows that `task` predicts, in order, one batch at a time: no more is held in memory.

    With `marks_failed`, or unless the solver's `on_failure` is `raise`, a batch whose solve fails is split into halves,
    and those again, until the samples that fail are alone. Their rows are NaN, or -1 for whole numbers, and the rows
    `failed` mark them. The random numbers of batch k depend only on k.

    Raises:
        SolveError: a solve failed; where failed ones are marked, that of every sample alone.
    """
    model.eval()
    predictor = _Predictor(model, task, precision, processes)
    if on_failure(model) == "raise" and not marks_failed:
        for number, batch in enumerate(batches):
            yield predictor(batch, independent_generator(processes.rank, number))
        return
    yield from _marked(predictor, batches, processes.rank)


@dataclass(frozen=True)
class _Predictor:
    model: nn.Module
    task: Task
    precision: str
    processes: Processes

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The rows of all samples, from all processes."""
        device = next(self.model.parameters()).device
        with torch.no_grad(), autocast(device, self.precision), self.processes.failing_together():
            rows = self.task.predict(self.model, self.processes.shard(batch)[0], generator)
        return self.processes.gathered_rows(rows, num_samples(batch))

    def in_pieces(self, batch: Batch, generator: torch.Generator) -> Iterator[Batch | SolveError]:
        """In order: the rows of as many samples at once as can be solved, or the error of a sample that cannot."""
        try:
            yield self(batch, generator)
            return
        except SolveError as error:
            failure = error.with_traceback(None)  # which would keep the tensors of the failed solve alive
        count = num_samples(batch)
        if count == 1:
            yield failure
            return
        middle = (count + 1) // 2
        for half in (slice(middle), slice(middle, count)):
            yield from self.in_pieces(take(batch, half), generator)


def _marked(predictor: _Predictor, batches: Iterable[Batch], rank: int) -> Iterator[Batch]:
    like: Batch | None = None
    waiting: list[Batch | SolveError] = []  # what a row looks like is known once a first sample is solved
    for number, batch in enumerate(batches):
        waiting += predictor.in_pieces(batch, independent_generator(rank, number))
        like = next((piece for piece in waiting if not isinstance(piece, SolveError)), like)
        if like is not None:
            yield concatenate([_with_mark(piece, like) for piece in waiting])
            waiting = []
    if like is None and waiting:
        error = waiting[-1]
        assert isinstance(error, SolveError)
        detail = f"and so for each of the {len(waiting)} samples alone; "
        raise SolveError(error.status, error.t, error.nfe, detail) from error


def _with_mark(piece: Batch | SolveError, like: Batch) -> Batch:
    has_failed = isinstance(piece, SolveError)
    rows = {name: _nothing(t) for name, t in like.items()} if isinstance(piece, SolveError) else piece
    marks = torch.full((num_samples(rows),), has_failed, device=next(iter(rows.values())).device)
    return {**rows, FAILED: marks}


def _nothing(rows: Tensor) -> Tensor:
    """One row like these, without a prediction."""
    if rows.is_floating_point() or rows.is_complex():
        return torch.full_like(rows[:1], math.nan)
    return torch.zeros_like(rows[:1]) if rows.dtype == torch.bool else torch.full_like(rows[:1], -1)


def rank_of(task: Task, metrics: Mapping[str, float]) -> list[float]:
    """What validations are compared by: the greater list is the better one; see `Task.objective`."""
    name, goal = task.objective
    value = metrics[name]
    losses = [-metrics["loss"]] if "loss" in metrics and name != "loss" else []
    return [value if goal == "max" else -value, *losses]


def rank_of_epoch(task: Task, values: Mapping[str, float]) -> list[float]:
    """The rank of an epoch's validation, from its values by their tags.

    Raises:
        ContinuationError: the epoch has no such value; it was trained for another task.
    """
    try:
        return rank_of(
            task, {tag.removeprefix("val/"): value for tag, value in values.items() if tag.startswith("val/")}
        )
    except KeyError as error:
        raise ContinuationError(f"its validations have no {error.args[0]}, the objective of the task") from error


def is_finite(rank: Sequence[float], where: str, on_bad_step: str) -> bool:
    """Whether a validation is finite, as the best one must be; if not, the log says so.

    Raises:
        TrainingError: it is not, and `on_bad_step` is `raise`.
    """
    if all(map(math.isfinite, rank)):
        return True
    message = f"the validation after {where} is not finite"
    if on_bad_step == "raise":
        raise TrainingError(f"{message}: lower optimizer.lr, or clip gradients (trainer.clip_norm=1)")
    log.warning("%s: it is not held to be the best", message)
    return False


def metric_names(model: nn.Module, task: Task) -> tuple[str, ...]:
    """The metrics of every evaluation of `model`."""
    return task.metric_names if on_failure(model) == "raise" else (*task.metric_names, FAILED)
