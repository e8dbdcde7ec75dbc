"""What every dataset is: three splits of tensors in memory, and the batches drawn from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from node_cli.batch import Batch, independent_generator, num_samples, take, to_device
from node_cli.datasets.digest import rough_digest
from node_cli.datasets.scaling import Preprocessing


class Augmentation(Protocol):
    """A random change of a batch; all randomness comes from `generator` (on the CPU)."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch: ...


@dataclass(frozen=True)
class Dataset:
    """The splits "train", "val" and "test", all on one device.

    Args:
        splits: all samples of each split: tensors by name, whose dimension 0 is the sample. The names are those that
            the tasks for this dataset read; they are the same in every split.
        offers: what a model or a task may ask for by the name of a parameter: `input_shape`, `class_names`, `scaling`
            (how the inputs were scaled; None: not at all), `num_levels` (how many whole numbers a raw value of the
            inputs can be; without it they are continuous), ...
        augmentation: a random change of every training batch.
        digest: identifies the data, if possible from what was read (`exact_digest`).
        preprocessing: how the raw values of a tensor became those of the splits, by its name; `node-predict` and
            `load_run` do the same to new data. A tensor without one is taken as it is.
        sample_names: what the samples of a split are called in a table of predictions; a split that is not named has
            numbers.
        lacks: offers that it would have with other keys, each with the sentence that says so.

    Raises:
        ValueError: the tensors of a split have different numbers of samples, or the splits have different names.
    """

    splits: Mapping[str, Batch]
    offers: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Augmentation | None = None
    digest: str | None = None
    preprocessing: Mapping[str, Preprocessing] = field(default_factory=dict)
    sample_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = {split: sorted(batch) for split, batch in self.splits.items()}
        for split, batch in self.splits.items():
            lengths = {name: len(tensor) for name, tensor in batch.items()}
            if len(set(lengths.values())) != 1:
                raise ValueError(f"dataset: split {split} must have tensors of equally many samples, got {lengths}")
            if names[split] != names[next(iter(names))]:
                raise ValueError(f"dataset: all splits must have the same tensors, got {names}")

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Dataset:
        """The dataset with all splits on `device`, and their floating-point tensors in `dtype`, if one is given."""
        return replace(self, splits={name: to_device(split, device, dtype) for name, split in self.splits.items()})

    def identified(self) -> Dataset:
        """The dataset with a `digest`: its own, or that of its splits."""
        return self if self.digest is not None else replace(self, digest=rough_digest(self.splits))

    def num_batches(self, split: str, batch_size: int) -> int:
        """The number of batches in a split; the last, smaller one counts."""
        return math.ceil(num_samples(self.splits[split]) / batch_size)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, start: int = 0, *, count: int | None = None
    ) -> Iterator[Batch]:
        """Yield the batches `start`, `start + 1`, ... of one epoch, shuffled and augmented.

        An epoch has `count` of them, going through the split as often as that takes, each time in another order; None:
        once.

        The order depends on `(seed, epoch)` alone and the augmentation of batch k on `(seed, epoch, k)` alone, on every
        device: an epoch taken up again in its middle goes on exactly as if it had not been interrupted.
        """
        split = self.splits["train"]
        device = next(iter(split.values())).device
        length = self.num_batches("train", batch_size)
        order = torch.empty(0)
        for k in range(start, length if count is None else count):
            number, place = divmod(k, length)
            if k == start or place == 0:
                order = torch.randperm(num_samples(split), generator=independent_generator(seed, epoch, *_pass(number)))
                order = order.to(device)
            batch: Batch = take(split, order[place * batch_size : (place + 1) * batch_size])
            if self.augmentation is not None:
                batch = self.augmentation(batch, independent_generator(seed, epoch, 1 + k))
            yield batch

    def batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Yield one split in its own order, without augmentation; the last batch may be smaller."""
        for k in range(self.num_batches(split, batch_size)):
            yield take(self.splits[split], slice(k * batch_size, (k + 1) * batch_size))


def _pass(number: int) -> tuple[int, ...]:
    """What tells a pass through the split from the others of its epoch, and from every batch."""
    return (0, number) if number else (0,)
