"""What is to be told of each sample: its class, or values of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from node_cli.batch import Batch
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.scaling import Preprocessing
from node_cli.datasets.series.scaling import fit_columns, unscaled
from node_cli.series import TARGETS

OFFERS = ("class_names", "target_names")  # a dataset has one of them, or none


@dataclass(frozen=True)
class RawLabels:
    """As they were read.

    Attributes:
        targets: `(n,)` int64, which of the classes; or, in float64, values `(n, k)`.
        class_names: empty: they are values.
        target_names: of the values; empty: they are classes.
    """

    targets: Tensor
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()


def labelled(
    dataset: Dataset, class_names: tuple[str, ...], target_names: tuple[str, ...], *, normalize: bool
) -> Dataset:
    """The dataset, whose splits hold `targets` as `RawLabels` has them, with what a task of labels asks for.

    Raises:
        ValueError: train has no sample of a class, a value is the same in all of it, or is too large.
    """
    train: Batch = dataset.splits["train"]
    if class_names:
        counts = train[TARGETS].bincount(minlength=len(class_names))
        for name in [name for name, count in zip(class_names, counts.tolist(), strict=True) if not count]:
            told = f"class {name} has no sample in train; give more samples of it, or leave it out"
            raise ValueError(f"dataset: {told}{as_values(class_names)}")
        lacks = f"the labels are classes: take task=classification{as_values(class_names)}"
        return replace(
            dataset,
            offers={**dataset.offers, "class_names": class_names, "class_counts": tuple(counts.tolist())},
            lacks={**dataset.lacks, "target_names": lacks},
        )
    scaling = fit_columns(train[TARGETS], target_names, "label") if normalize else unscaled(len(target_names))
    splits = {name: {**split, TARGETS: scaling(split[TARGETS]).float()} for name, split in dataset.splits.items()}
    if not all(split[TARGETS].isfinite().all() for split in splits.values()):
        raise ValueError("dataset.normalize: the labels are too large for float32; give them in another unit")
    verb = "is a number" if len(target_names) == 1 else "are numbers"
    return replace(
        dataset,
        splits=splits,
        offers={**dataset.offers, "target_names": target_names, "target_scaling": scaling},
        preprocessing={**dataset.preprocessing, TARGETS: Preprocessing(None, scaling)},
        lacks={**dataset.lacks, "class_names": f"{', '.join(target_names)} {verb}: take task=regression"},
    )


def listed(label: str | Sequence[str] | None) -> list[str]:
    """The names that `dataset.label` holds."""
    return [label] if isinstance(label, str) else list(label or ())


def are_whole(class_names: Sequence[str]) -> bool:
    """Whether all classes are whole numbers."""
    return all(name.removeprefix("-").isdecimal() for name in class_names)


def as_values(class_names: Sequence[str]) -> str:
    """Of classes that are whole numbers, how they are read as values instead, for the end of a message."""
    return "; to read whole numbers as values, write dataset.label=[NAME]" if are_whole(class_names) else ""
