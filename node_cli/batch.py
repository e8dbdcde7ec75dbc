"""What all parts exchange: tensors by name, whose first dimension is the sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

# A batch, a whole split, or rows of predictions. Dimension 0 of every tensor is the sample, and samples share nothing.
# The dataset chooses the names; the tasks for it use them.
Batch = Mapping[str, Tensor]


def num_samples(batch: Batch) -> int:
    """The number of samples of a batch."""
    return len(next(iter(batch.values())))


def take(batch: Batch, samples: Tensor | slice) -> dict[str, Tensor]:
    """Some samples of a batch: by indices, by a mask, or by a slice."""
    return {name: tensor[samples] for name, tensor in batch.items()}


def concatenate(batches: Sequence[Batch]) -> dict[str, Tensor]:
    """All samples of several batches with the same names, in order."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def to_device(batch: Batch, device: torch.device | str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The batch on `device`, and its floating-point tensors in `dtype`, if one is given, but never in a shorter one.

    Times are float64, whatever the values are; on MPS, which has none, they become float32.
    """
    has_float64 = torch.device(device).type != "mps"
    return {name: tensor.to(device, _dtype(tensor.dtype, dtype, has_float64)) for name, tensor in batch.items()}


def _dtype(own: torch.dtype, wanted: torch.dtype | None, has_float64: bool) -> torch.dtype:
    longer = own if wanted is None or not own.is_floating_point else torch.promote_types(own, wanted)
    return longer if has_float64 or longer != torch.float64 else torch.float32


def independent_generator(*stream: int) -> torch.Generator:
    """Random numbers for each list of whole numbers, 0 or more; neighbouring lists have nothing in common.

    Of a seed, torch's generator on the CPU uses 32 bits only.
    """
    state = np.random.SeedSequence(stream).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
