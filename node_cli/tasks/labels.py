"""What tasks that tell something of a whole sample share: of its inputs, or of all that was observed of a series."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.series import (
    CONTROLS,
    DROPPED,
    MASK,
    START,
    STATICS,
    TARGET,
    TIMES,
    TRUTH,
    VALUES,
    LabelModel,
    Units,
    all_observed,
    visible,
)

OF_SERIES = (TIMES, VALUES, MASK, TARGET, CONTROLS, STATICS, START, TRUTH, DROPPED)
CONTEXT = {"dataset.context": "on what is told of a whole series, which is seen to its end: take task=trajectory"}


def inputs_of(units: Units | None) -> tuple[str, ...]:
    """See `Task.inputs`; `units` are those of series, None: the samples are no series."""
    return ("inputs",) if units is None else OF_SERIES


def model_type_of(units: Units | None) -> type[nn.Module]:
    """See `Task.model_type`."""
    return nn.Module if units is None else LabelModel


def unused_with(units: Units | None) -> Mapping[str, str]:
    """See `Task.unused`."""
    return {} if units is None else CONTEXT


def seen(batch: Batch) -> Batch:
    """A batch of series as a model sees it to its end: all that was observed and not dropped."""
    return visible({**batch, MASK: all_observed(batch)})


def outputs(model: nn.Module, batch: Batch) -> Tensor:
    """What a model gives for each sample `(n, num_outputs)`, in float32 at least: bfloat16 has too few digits."""
    found: Tensor = model(seen(batch) if TIMES in batch else batch["inputs"])
    return found.to(torch.promote_types(found.dtype, torch.float32))
