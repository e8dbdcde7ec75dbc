"""One update of the weights from one batch, and what happens to a batch that must not change them."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from node_cli.advice import in_keys
from node_cli.batch import Batch
from node_cli.ode.errors import ArgumentError
from node_cli.ode.solution import SolveError
from node_cli.tasks.task import Task
from node_cli.training.evaluation import autocast
from node_cli.training.failures import fallback_solvers, on_failure, state_beside_weights
from node_cli.training.memory import reporting_out_of_memory
from node_cli.training.processes import Processes
from node_cli.training.solve_monitor import SolveMonitor
from node_cli.training.state import BadStepError, TrainingError, TrainState

log = logging.getLogger(__name__)

LESS_MEMORY = (
    "Take gradient=checkpoint, bound it further (gradient.max_checkpoints=10), or lower trainer.batch_size or the "
    "model's width"
)
GROWN = 30.0  # times their size at the start: weights that only a learning rate that is too high makes
INERTIA = 0.95  # of the loss that a spike is held against


class Update(NamedTuple):
    """The result of one update: the `means` of the loss and the metrics over `weight`, and the `costs`, all by tag."""

    means: dict[str, float]
    weight: float
    costs: dict[str, float]


@dataclass(kw_only=True)
class Updater:
    """Updates `model` from one batch at a time; `monitor` watches it.

    If a solve fails, `on_failure` of the solver decides: `raise` ends the run, `skip_batch` skips the batch, and
    `fallback` solves the batch again with the solver's fallback. If the loss or its gradient is not finite, or the loss
    exceeds `spike_factor` times its usual value, `on_bad_step` decides: `raise` or `skip_batch`. At most `max_skipped`
    batches of a run are skipped. They leave no trace: weights, running means and step sizes are as before.
    """

    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    monitor: SolveMonitor
    processes: Processes
    precision: str
    clip_norm: float | None
    on_bad_step: str
    spike_factor: float | None
    max_skipped: int

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, torch.optim.LBFGS) and self.clip_norm is not None:
            raise ValueError("clip_norm must be null with LBFGS, whose line search needs the whole gradient")
        self._size_at_start = _size(self.model)

    def update(self, batch: Batch, state: TrainState, progress: float) -> Update | None:
        """Updates the weights, at `progress` of the run; None if the batch was skipped. `state` counts failures.

        Raises:
            TrainingError: the batch failed and may not be skipped; the weights were not changed.
        """
        may_go_on = self.on_bad_step != "raise" or on_failure(self.model) != "raise"
        before = state_beside_weights(self.model) if may_go_on else {}
        failure: Exception
        try:
            return self._attempt_or_fall_back(batch, state, progress, before)
        except SolveError as error:
            if on_failure(self.model) == "raise":
                raise TrainingError(f"step {state.step + 1}: {self.growth()}{in_keys(error)}") from error
            failure = error.with_traceback(None)  # which would keep the graph of the failed attempt alive
        except ArgumentError as error:
            raise TrainingError(f"step {state.step + 1}: {in_keys(error)}") from error
        except BadStepError as error:
            if self.on_bad_step == "raise":
                raise TrainingError(f"step {state.step + 1}: {error}") from error
            failure = error.with_traceback(None)
        self._undo(before)
        self._count_skipped(state, failure)
        return None

    def forget(self) -> None:
        """Drops running means of gradients. What LBFGS knows of curvature helps with another loss too, and stays."""
        if not isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.state.clear()

    def failure_counts(self, state: TrainState) -> dict[str, float]:
        """How many batches of the run have failed so far, by the tag of what happened to them."""
        policy = on_failure(self.model)
        counts: dict[str, float] = {}
        if policy == "skip_batch":
            counts["solver/skipped"] = state.num_skipped
        if policy == "fallback":
            counts["solver/fallbacks"] = state.num_fallbacks
        if self.on_bad_step == "skip_batch":
            counts["train/skipped"] = state.num_bad
        return counts

    def _attempt_or_fall_back(
        self, batch: Batch, state: TrainState, progress: float, before: Mapping[str, Any]
    ) -> Update:
        try:
            return self._attempt(batch, state, progress)
        except SolveError as error:
            if on_failure(self.model) != "fallback":
                raise
            failure = error.with_traceback(None)
        self._undo(before)
        state.num_fallbacks += 1
        if state.num_fallbacks == 1:  # a line each could be thousands
            log.warning(
                "step %d: the fallback solves this batch (later ones are only counted): %s",
                state.step + 1,
                in_keys(failure),
            )
        try:
            with fallback_solvers(self.model):
                return self._attempt(batch, state, progress)
        except SolveError as second:
            raise TrainingError(
                f"step {state.step + 1}: {in_keys(failure)}. Its fallback failed too: {in_keys(second)}"
            ) from second

    def _attempt(self, batch: Batch, state: TrainState, progress: float) -> Update:
        update, step_sizes = self._gradients(batch, state, progress)
        self._clip_and_check(update.means["train/loss"], update.costs, state)
        if isinstance(self.optimizer, torch.optim.LBFGS):
            self._search(update.means["train/loss"], batch, state, progress)
        else:
            self.optimizer.step()
        for name, sizes in step_sizes.items():
            state.step_sizes.setdefault(name, []).extend(sizes)
        return update

    def _gradients(self, batch: Batch, state: TrainState, progress: float) -> tuple[Update, dict[str, list[float]]]:
        """Sets the gradients of all weights, and tells the step sizes of every solve."""
        self.optimizer.zero_grad(set_to_none=True)
        mine, counts = self.processes.shard(batch)
        step, device = f"step {state.step + 1}", next(self.model.parameters()).device
        together, reporting = self.processes.failing_together, partial(reporting_out_of_memory, step, LESS_MEMORY)
        with together(), reporting(), autocast(device, self.precision):
            loss = self.task.loss(self.model, mine, progress)
        weight = self.processes.total(counts * loss.weight.detach())
        if not weight:
            raise BadStepError(
                "the loss of this batch is a sum over nothing (its weight is 0): take larger batches "
                "(trainer.batch_size), or skip such ones (trainer.on_bad_step=skip_batch)"
            )
        share = counts * loss.total / weight
        with together(), reporting():
            share.backward()
        costs = self.monitor.take()
        self.processes.sum_gradients(self.model)
        shares = {"train/loss": share.item()}
        shares |= {f"train/{name}": (counts * value / weight).item() for name, value in loss.metrics.items()}
        means, solves = self.processes.combined(shares, costs.scalars())
        rate = {"lr": self.optimizer.param_groups[0]["lr"]}
        return Update(means, weight.item(), {**rate, **solves}), costs.step_sizes

    def _search(self, loss: float, batch: Batch, state: TrainState, progress: float) -> None:
        """A step of an optimizer that evaluates the loss of the batch several times; `loss` is the first of them.

        Raises:
            BadStepError: it led to weights that are not finite; they are again what they were.
        """
        parameters = list(self.model.parameters())
        before, memory = [each.detach().clone() for each in parameters], deepcopy(self.optimizer.state_dict())
        first, comes_back = [loss], self.optimizer.param_groups[0]["line_search_fn"] is not None

        def closure() -> float:
            if first:
                return first.pop()
            try:
                value = self._gradients(batch, state, progress)[0].means["train/loss"]
            except SolveError:
                if not comes_back:
                    raise
                self.monitor.take()
                value = math.nan
            if math.isfinite(value) or not comes_back:
                return value
            self.optimizer.zero_grad(set_to_none=True)
            return loss  # no better than where the search began, so it comes back

        try:
            self.optimizer.step(closure)
            if not all(each.isfinite().all() for each in parameters):
                raise BadStepError(
                    "a line search led to weights that are not finite; the weights were not changed. Lower "
                    "optimizer.lr or optimizer.max_iter"
                )
        except (SolveError, BadStepError):
            self.optimizer.load_state_dict(memory)
            with torch.no_grad():
                for parameter, value in zip(parameters, before, strict=True):
                    parameter.copy_(value)
            raise

    def _clip_and_check(self, loss: float, solves: Mapping[str, float], state: TrainState) -> None:
        parameters = list(self.model.parameters())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not (math.isfinite(loss) and math.isfinite(norm.item())):
            raise BadStepError(
                f"the loss or its gradient is not finite (loss {loss:.4g}, gradient norm "
                f"{norm.item():.4g}, NFE {solves.get('nfe/forward', 0):.0f}); the weights were not changed. Lower "
                "optimizer.lr, or clip gradients (trainer.clip_norm=1)"
            )
        usual = loss if state.usual_loss is None else state.usual_loss
        if self.spike_factor is not None and loss - usual > (self.spike_factor - 1) * abs(usual):
            raise BadStepError(
                f"the loss is a spike, {loss:.4g} against {usual:.4g} as usual (more than "
                f"trainer.spike_factor={self.spike_factor:g} times); the weights were not changed. Lower optimizer.lr, "
                "or clip gradients (trainer.clip_norm=1)"
            )
        state.usual_loss = INERTIA * usual + (1 - INERTIA) * loss
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)

    def growth(self) -> str:
        """A hint if the weights have grown out of proportion, which is not the solver's fault; empty otherwise."""
        growth = _size(self.model) / self._size_at_start
        if growth < GROWN:
            return ""
        return f"the weights are {growth:.2g} times as large as at the start, so lower optimizer.lr first; "

    def _undo(self, before: Mapping[str, Any]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.monitor.take()
        self.model.load_state_dict(before, strict=False)

    def _count_skipped(self, state: TrainState, failure: Exception) -> None:
        if isinstance(failure, SolveError):
            state.num_skipped += 1
            what, advice = "could not be solved", "take solver.on_failure=fallback, or allow more of them"
        else:
            state.num_bad += 1
            what, advice = "were bad steps", "or allow more of them"
        count = state.num_skipped + state.num_bad
        if count > self.max_skipped:
            raise TrainingError(
                f"step {state.step + 1}: {count} batches {what}, more than trainer.max_skipped={self.max_skipped}; the "
                f"last: {in_keys(failure)}. Follow this advice, {advice}"
            ) from failure
        skipped = (state.step + 1, count, self.max_skipped, in_keys(failure))
        log.warning("step %d: batch skipped (%d of at most %d): %s", *skipped)


def _size(model: nn.Module) -> float:
    """The norm of all weights; never 0."""
    return max(nn.utils.get_total_norm([parameter.detach() for parameter in model.parameters()]).item(), 1e-12)
