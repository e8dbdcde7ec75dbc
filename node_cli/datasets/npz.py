"""A user's own arrays, from one .npz file: images or points, or series."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from node_cli.batch import Batch
from node_cli.datasets.array_labels import array_labels, check_labels, other_arrays
from node_cli.datasets.assembling import assemble
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.labels import OFFERS, RawLabels, labelled, listed
from node_cli.datasets.npz_file import array_names, read_arrays
from node_cli.datasets.scaling import EIGHT_BITS
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.own_arrays import KNOWN, series_of_arrays
from node_cli.datasets.series.own_table import OF_SERIES, own_series, refuse_keys
from node_cli.datasets.series.raw import RawSeries
from node_cli.datasets.series.source import with_keys
from node_cli.datasets.splitting import splits_by_keys
from node_cli.series import TARGETS, TIMES, VALUES

log = logging.getLogger(__name__)

PREFIXES = {"train": "", "val": "val_", "test": "test_"}
INPUTS = tuple(f"{prefix}inputs" for prefix in PREFIXES.values())
UNLABELLED = "dataset: {path} holds no targets: name the array of labels in dataset.label, or take task=density"
SERIES_ALONE = {**OF_SERIES, "split": "series"}


@dataclass(frozen=True)
class RawSamples:
    """Images or points, as they were read.

    Attributes:
        path: the file.
        splits: "train", and perhaps "val" and "test": `inputs`, and `targets` if there are labels.
        labels: of all splits, one after the other; None: there are none.
        highest: the raw value that is 1 in the splits; None: they are raw.
        crop_padding, flip: see `assemble`.
    """

    path: str
    splits: Mapping[str, Batch]
    labels: RawLabels | None
    highest: float | None
    crop_padding: int
    flip: bool


def series_or_samples(made: RawSeries | RawSamples, keys: SeriesKeys) -> Dataset:
    """The dataset of a file."""
    if isinstance(made, RawSeries):
        return own_series(made, keys)
    given = {key: getattr(keys, key) for key in SERIES_ALONE}
    refuse_keys(given, SERIES_ALONE, f"on the inputs of {made.path}, which are no series")
    to_cut = [name for name in ("test", "val") if name not in made.splits]
    told = made.labels
    class_names = () if told is None else told.class_names
    cut = splits_by_keys(made.splits["train"], keys, made.path, to_cut, class_names)
    splits = {**made.splits, **cut}
    dataset = assemble(splits, None, made.crop_padding, made.flip, keys.normalize, highest=made.highest)
    if told is None:
        return replace(dataset, lacks=dict.fromkeys(OFFERS, UNLABELLED.format(path=made.path)))
    return labelled(dataset, told.class_names, told.target_names, normalize=keys.normalize)


@partial(with_keys, kind=SeriesKeys, then=series_or_samples)
def npz(path: str, label: str | list[str] | None, crop_padding: int, flip: bool) -> RawSeries | RawSamples:
    """Series, `times` and `values`, see `series_of_arrays`; or images `(n, c, h, w)` or points `(n, d)` in `inputs`.

    Inputs are floating point, or uint8, which is divided by 255. `val_inputs` and `test_inputs` are optional; a split
    that is not there is cut from `inputs`, stratified.

    Args:
        path: the file.
        label: the array of what is to be told of each sample, or a list of arrays, see `array_labels`; None: `targets`
            of inputs, if there are any, and nothing of series. For `val_inputs` there is one with `val_` before it.
        crop_padding: see `assemble`; of images alone.
        flip: likewise.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file or a key is not what it should be.
    """
    if label == []:
        raise ValueError("label must name an array, or a list of arrays of numbers, or be null, got []")
    names = array_names(Path(path))
    for absent in [name for name in listed(label) if name not in names]:
        raise ValueError(f"dataset.label: {path} holds no array {absent}, only {', '.join(sorted(names))}")
    are_samples = "inputs" in names or not {TIMES, VALUES} & set(names)
    for data in [name for name in listed(label) if name in (INPUTS if are_samples else KNOWN)]:
        raise ValueError(
            f"dataset.label: {data} of {path} is read as data, and cannot be the label: name another array"
        )
    if are_samples:
        return _samples(path, names, label, crop_padding, flip)
    if crop_padding or flip:
        raise ValueError(
            f"dataset.crop_padding={crop_padding}, dataset.flip={flip}: only images can be cropped and flipped, and "
            f"{path} holds series; set them to 0 and false"
        )
    return series_of_arrays(path, _read(path, names, KNOWN, label), label)


def _samples(
    path: str, names: Sequence[str], label: str | list[str] | None, crop_padding: int, flip: bool
) -> RawSamples:
    asked = label  # where no label is asked for, no other array may be one
    if label is None and any(name.endswith(TARGETS) for name in names):
        label = TARGETS
    kinds = ["inputs", *listed(label)]
    arrays = _read(path, names, [prefix + kind for prefix in PREFIXES.values() for kind in kinds], asked)
    given = {
        name: prefix for name, prefix in PREFIXES.items() if not prefix or {prefix + kind for kind in kinds} & {*arrays}
    }
    for name in sorted({prefix + kind for prefix in given.values() for kind in kinds} - {*arrays}):
        raise ValueError(f"dataset.path: {path} holds no array {name}, only {', '.join(sorted(arrays)) or 'nothing'}")
    splits = {name: {"inputs": _inputs(path, arrays, prefix)} for name, prefix in given.items()}
    for name, split in splits.items():
        shape, train_shape = split["inputs"].shape[1:], splits["train"]["inputs"].shape[1:]
        if shape != train_shape:
            raise ValueError(
                f"dataset.path: {path}: {name}_inputs has samples {tuple(shape)}, inputs has {tuple(train_shape)}; "
                "must be equal"
            )
    told = None if label is None else _labels(path, arrays, label, given)
    if told is not None:
        sizes = [len(split["inputs"]) for split in splits.values()]
        for split, targets in zip(splits.values(), told.targets.split(sizes), strict=True):
            split[TARGETS] = targets
    highest = EIGHT_BITS if arrays["inputs"].dtype == np.uint8 else None
    return RawSamples(path, splits, told, highest, crop_padding, flip)


def _read(
    path: str, names: Sequence[str], known: Sequence[str], label: str | list[str] | None
) -> dict[str, np.ndarray]:
    """The known arrays of a file and those of labels."""
    others = other_arrays(path, names, known, label)
    if others:
        log.info("dataset: not read from %s: %s", path, ", ".join(others))
    return read_arrays(Path(path), names, others)


def _inputs(path: str, arrays: Mapping[str, np.ndarray], prefix: str) -> torch.Tensor:
    inputs, where = arrays[f"{prefix}inputs"], f"dataset.path: {path}: {prefix}"
    if inputs.dtype.kind != "f" and inputs.dtype != np.uint8:
        raise ValueError(f"{where}inputs has dtype {inputs.dtype}, must be floating point or uint8")
    if inputs.ndim not in (2, 4) or 0 in inputs.shape:
        raise ValueError(f"{where}inputs has shape {inputs.shape}, must be (n, d) or (n, c, h, w), none of them 0")
    with np.errstate(over="ignore"):  # it becomes infinite, which is refused below
        values = inputs.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{where}inputs holds values that are NaN or infinite in float32")
    if inputs.dtype == np.uint8:
        values /= EIGHT_BITS
    return torch.from_numpy(values)


def _labels(path: str, arrays: Mapping[str, np.ndarray], label: str | list[str], given: Mapping[str, str]) -> RawLabels:
    """Those of all splits, one after the other."""
    joined = {name: array for name, array in arrays.items() if name.endswith("_columns")}
    for name in listed(label):
        parts = {prefix: arrays[prefix + name] for prefix in given.values()}
        for prefix, part in parts.items():
            check_labels(path, prefix + name, part, len(arrays[f"{prefix}inputs"]))
            if (part.dtype.kind, part.shape[1:]) != (parts[""].dtype.kind, parts[""].shape[1:]):
                raise ValueError(
                    f"dataset.path: {path}: {prefix}{name} has {part.dtype} {part.shape[1:]} for a sample, {name} has "
                    f"{parts[''].dtype} {parts[''].shape[1:]}; must be alike"
                )
        joined[name] = np.concatenate(list(parts.values()))
    return array_labels(path, joined, label, sum(len(arrays[f"{prefix}inputs"]) for prefix in given.values()))
