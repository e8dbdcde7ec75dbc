"""What every dataset is: three splits of tensors in memory, and the batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Inputs `(batch, *input_shape)` float32 and targets `(batch,)` int64."""

    inputs: Tensor
    targets: Tensor


class Split(NamedTuple):
    """All samples of one split: inputs `(samples, *input_shape)` float32, targets `(samples,)` int64."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


class Augmentation(Protocol):
    """A random change of a batch of inputs; all randomness comes from `generator` (on the CPU)."""

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor: ...
