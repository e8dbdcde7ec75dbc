"""One update of the weights from one batch, and what becomes of the batch where its solve fails."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from node_cli.ode.solution import SolveError
from node_cli.tasks.base import Task
from node_cli.training.evaluation import autocast
from node_cli.training.failures import fallback_solvers, on_failure, state_beside_weights
from node_cli.training.solve_monitor import SolveCosts, SolveMonitor
from node_cli.training.state import TrainingError, TrainState

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Updater:
    """Updates `model` from one batch at a time; `monitor` watches it.

    Where a solve fails, `on_failure` of the solver decides: `raise` ends the run; `skip_batch` passes the batch by, at
    most `max_skipped` times in a run; `fallback` solves the batch once more by the solver's fallback. The last two
    leave no trace of the failed attempt: gradients, running means and step sizes carried over are as before it.
    """

    model: nn.Module
    task: Task
    optimizer: torch.optim.Optimizer
    monitor: SolveMonitor
    precision: str
    clip_norm: float | None
    max_skipped: int

    def update(self, batch: Any, state: TrainState) -> dict[str, float]:
        """The figures of the batch, none where it was skipped. Failures and step sizes are added to `state`.

        Raises:
            TrainingError: a solve failed, or the loss or its gradient was not finite; the weights were not changed.
        """
        policy = on_failure(self.model)
        before = {} if policy == "raise" else state_beside_weights(self.model)
        try:
            return self._attempt(batch, state)
        except SolveError as error:
            if policy == "raise":
                raise TrainingError(f"step {state.step + 1}: {error}") from error
            failure = error.with_traceback(None)  # which would keep the graph of the failed attempt alive
        self._undo(before)
        if policy == "fallback":
            return self._fall_back(batch, state, failure)
        self._count_skipped(state, failure)
        return {}

    def failure_counts(self, state: TrainState) -> dict[str, float]:
        """Batches of the run so far whose solve failed, by the tag of what became of them."""
        policy = on_failure(self.model)
        if policy == "skip_batch":
            return {"solver/skipped": state.num_skipped}
        return {"solver/fallbacks": state.num_fallbacks} if policy == "fallback" else {}

    def _attempt(self, batch: Any, state: TrainState) -> dict[str, float]:
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(next(self.model.parameters()).device, self.precision):
            loss, metrics = self.task.loss(self.model, batch)
        loss.backward()
        costs = self.monitor.take()
        for name, sizes in costs.step_sizes.items():
            state.step_sizes.setdefault(name, []).extend(sizes)
        self._clip_and_check(loss, costs, state)
        self.optimizer.step()
        return {
            "train/loss": loss.item(),
            **{f"train/{name}": value.item() for name, value in metrics.items()},
            "lr": self.optimizer.param_groups[0]["lr"],
            **costs.scalars(),
        }

    def _undo(self, before: Mapping[str, Any]) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.monitor.take()
        self.model.load_state_dict(before, strict=False)

    def _count_skipped(self, state: TrainState, error: SolveError) -> None:
        state.num_skipped += 1
        if state.num_skipped > self.max_skipped:
            raise TrainingError(
                f"step {state.step + 1}: {state.num_skipped} batches could not be solved, more than "
                f"trainer.max_skipped={self.max_skipped}; the last: {error}. Follow this advice, take "
                "solver.on_failure=fallback, or allow more of them"
            ) from error
        log.warning(
            "step %d: batch skipped (%d of at most %d): %s", state.step + 1, state.num_skipped, self.max_skipped, error
        )

    def _fall_back(self, batch: Any, state: TrainState, error: SolveError) -> dict[str, float]:
        state.num_fallbacks += 1
        if state.num_fallbacks == 1:  # a line each could be thousands
            log.warning(
                "step %d: the fallback solves this batch (later ones are only counted): %s", state.step + 1, error
            )
        try:
            with fallback_solvers(self.model):
                return self._attempt(batch, state)
        except SolveError as second:
            raise TrainingError(f"step {state.step + 1}: {error}. Its fallback failed too: {second}") from second

    def _clip_and_check(self, loss: Tensor, costs: SolveCosts, state: TrainState) -> None:
        parameters = list(self.model.parameters())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise TrainingError(
                f"step {state.step + 1}: the loss or its gradient is not finite (loss {loss.item():.4g}, gradient "
                f"norm {norm.item():.4g}, NFE {costs.nfe_forward:.0f}); the weights were not changed. Lower "
                "optimizer.lr, or clip gradients (trainer.clip_norm=1)"
            )
        if self.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
