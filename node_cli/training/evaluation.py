"""A model judged on one split, outside the loop as inside it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from node_cli.tasks.base import Evaluation, Task
from node_cli.training.failures import on_failure
from node_cli.training.processes import ALONE, Processes


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


def metric_names(model: nn.Module, task: Task) -> tuple[str, ...]:
    """The metrics of every evaluation of `model`."""
    return (*task.metric_names, "failed") if _skips_failed(model) else task.metric_names


def _skips_failed(model: nn.Module) -> bool:
    return on_failure(model) != "raise"
