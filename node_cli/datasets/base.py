"""What every dataset is: three splits of tensors in memory, and the batches drawn from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from node_cli.datasets.digest import rough_digest


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


@dataclass(frozen=True)
class Dataset:
    """Splits "train", "val" and "test" of one classification problem, all on one device.

    `digest` tells the data from others: of what was read, where that is known (`exact_digest`).
    """

    splits: dict[str, Split]
    class_names: tuple[str, ...]
    augmentation: Augmentation | None
    digest: str | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: `(channels, height, width)` of an image, `(d,)` of a point."""
        return tuple(self.splits["train"].inputs.shape[1:])

    @property
    def num_classes(self) -> int:
        """Number of classes; the targets are 0 to num_classes - 1."""
        return len(self.class_names)

    def to(self, device: torch.device) -> Dataset:
        """Return the same dataset with all splits on `device`."""
        return replace(
            self, splits={k: Split(v.inputs.to(device), v.targets.to(device)) for k, v in self.splits.items()}
        )

    def identified(self) -> Dataset:
        """The same with a `digest`: where it has none, that of the splits as they stand."""
        return self if self.digest is not None else replace(self, digest=rough_digest(self.splits))

    def num_train_batches(self, batch_size: int) -> int:
        """Batches in one epoch; the last, smaller one counts."""
        return self.num_batches("train", batch_size)

    def num_batches(self, split: str, batch_size: int) -> int:
        """Batches in one split; the last, smaller one counts."""
        return math.ceil(len(self.splits[split]) / batch_size)

    def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches `start`, `start + 1`, ... of one epoch, shuffled and augmented.

        The order depends on `(seed, epoch)` alone and the augmentation of batch k on `(seed, epoch, k)` alone, on every
        device: an epoch taken up again in its middle goes on exactly as if it had not been interrupted.
        """
        inputs, targets = self.splits["train"]
        order = torch.randperm(len(targets), generator=_generator(seed, epoch, 0)).to(targets.device)
        for k in range(start, self.num_train_batches(batch_size)):
            chosen = order[k * batch_size : (k + 1) * batch_size]
            batch = inputs[chosen]
            if self.augmentation is not None:
                batch = self.augmentation(batch, _generator(seed, epoch, 1 + k))
            yield Batch(batch, targets[chosen])

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield one split in its own order, without augmentation; the last batch may be smaller."""
        inputs, targets = self.splits[split]
        for batch in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            yield Batch(*batch)


def _generator(seed: int, epoch: int, stream: int) -> torch.Generator:
    """Independent random numbers for each triple; neighbouring triples have nothing in common."""
    state = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
