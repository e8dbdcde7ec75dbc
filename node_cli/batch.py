"""What everything passes around: tensors by name, samples first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# Dimension 0 of every tensor is the sample, and nothing in it is shared by samples: a batch, a whole split, or rows of
# predictions. Which names there are is between a dataset and the tasks that go with it.
Batch = Mapping[str, Tensor]


def num_samples(batch: Batch) -> int:
    """How many samples a batch has."""
    return len(next(iter(batch.values())))


def take(batch: Batch, samples: Tensor | slice) -> dict[str, Tensor]:
    """Some samples of a batch: by their indices, by a mask, or a slice of them."""
    return {name: tensor[samples] for name, tensor in batch.items()}


def concatenate(batches: Sequence[Batch]) -> dict[str, Tensor]:
    """All samples of several batches of the same names, in order."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def to_device(batch: Batch, device: torch.device | str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The same on `device`; floating-point tensors in `dtype`, where one is given."""
    return {name: tensor.to(device, dtype if tensor.is_floating_point() else None) for name, tensor in batch.items()}
