"""A model judged on one split, outside the loop as inside it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from node_cli.tasks.base import Evaluation, Task
from node_cli.training.failures import on_failure
from node_cli.training.processes import ALONE, Processes
from node_cli.training.state import TrainingError

log = logging.getLogger(__name__)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The context that vector fields and layers are evaluated in; ODE states keep float32 all the same."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def evaluate(
    model: nn.Module, task: Task, batches: Iterable[Any], precision: str, processes: Processes = ALONE
) -> Evaluation:
    """Judges `model` on the batches of a split, without gradients; several processes share each of them.

    Raises:
        SolveError: a solve failed; unless the solver's `on_failure` is `raise`, that of every sample alone.
    """
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad(), autocast(device, precision):
        return task.evaluate(processes.spread(model), batches, skip_failed=_skips_failed(model))


def is_finite(rank: Sequence[float], where: str, on_bad_step: str) -> bool:
    """Whether a validation is finite, as the best one must be; otherwise the log says so.

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
    return (*task.metric_names, "failed") if _skips_failed(model) else task.metric_names


def _skips_failed(model: nn.Module) -> bool:
    return on_failure(model) != "raise"
