"""A user's own arrays, from one .npz file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from node_cli.batch import Batch
from node_cli.datasets.assembling import assemble
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.npz_file import read_arrays
from node_cli.datasets.scaling import EIGHT_BITS
from node_cli.datasets.splitting import stratified_splits

PREFIXES = {"train": "", "val": "val_", "test": "test_"}
NAMES = tuple(prefix + kind for prefix in PREFIXES.values() for kind in ("inputs", "targets"))


def npz(
    path: str,
    split_seed: int,
    val_fraction: float,
    test_fraction: float,
    crop_padding: int,
    flip: bool,
    normalize: bool,
) -> Dataset:
    """Images `(n, c, h, w)` or points `(n, d)` in `inputs`, labels 0, 1, ... `(n,)` in `targets`, if they have any.

    `val_inputs`, `val_targets` and `test_inputs`, `test_targets` are optional; a split that is not there is cut from
    `inputs`, stratified. Inputs are floating point, or uint8, which is divided by 255.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file or a key is not what it should be.
    """
    arrays = read_arrays(Path(path), NAMES)
    _check_names(path, set(arrays))
    splits = {name: _split(path, arrays, prefix) for name, prefix in PREFIXES.items() if f"{prefix}inputs" in arrays}
    num_classes = _count_classes(path, splits["train"]) if "targets" in arrays else None
    for name in splits.keys() - {"train"}:
        _check_like_train(path, name, splits, num_classes)
    fractions = {"test": test_fraction, "val": val_fraction}
    to_cut = {name: fraction for name, fraction in fractions.items() if name not in splits}
    splits |= stratified_splits(splits["train"], to_cut, split_seed)
    class_names = None if num_classes is None else tuple(str(label) for label in range(num_classes))
    highest = EIGHT_BITS if arrays["inputs"].dtype == np.uint8 else None
    return assemble(splits, class_names, crop_padding, flip, normalize, highest=highest)


def _check_names(path: str, names: set[str]) -> None:
    kinds = ("inputs", "targets") if any(name.endswith("targets") for name in names) else ("inputs",)
    given = [prefix for prefix in PREFIXES.values() if not prefix or names & {prefix + kind for kind in kinds}]
    for name in sorted({prefix + kind for prefix in given for kind in kinds} - names):
        raise ValueError(f"dataset.path: {path} holds no array {name}, only {', '.join(sorted(names)) or 'nothing'}")


def _split(path: str, arrays: dict[str, np.ndarray], prefix: str) -> Batch:
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
    batch = {"inputs": torch.from_numpy(values)}
    if f"{prefix}targets" in arrays:
        batch["targets"] = _targets(where, arrays[f"{prefix}targets"], inputs.shape[:1])
    return batch


def _targets(where: str, targets: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    if targets.dtype.kind not in "iu":
        raise ValueError(f"{where}targets has dtype {targets.dtype}, must be integers")
    if targets.shape != shape:
        raise ValueError(f"{where}targets has shape {targets.shape}, must be {shape}, one a sample")
    if len(targets) and int(targets.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{where}targets holds the label {targets.max()}; must be 0, 1, ... without a gap")
    return torch.from_numpy(targets.astype(np.int64))


def _count_classes(path: str, train: Batch) -> int:
    labels = train["targets"].unique().tolist()
    if len(labels) < 2 or labels != list(range(len(labels))):
        shown = ", ".join(str(label) for label in labels[:10]) + (", ..." if len(labels) > 10 else "")
        raise ValueError(f"dataset.path: {path}: targets holds the labels {shown}; must be 0, 1, ... without a gap")
    return len(labels)


def _check_like_train(path: str, name: str, splits: dict[str, Batch], num_classes: int | None) -> None:
    shape, train_shape = splits[name]["inputs"].shape[1:], splits["train"]["inputs"].shape[1:]
    if shape != train_shape:
        raise ValueError(
            f"dataset.path: {path}: {name}_inputs has samples {tuple(shape)}, inputs has {tuple(train_shape)}; "
            "must be equal"
        )
    if num_classes is None:
        return
    low, high = splits[name]["targets"].min(), splits[name]["targets"].max()
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"dataset.path: {path}: {name}_targets holds labels from {low} to {high}, "
            f"targets from 0 to {num_classes - 1}"
        )
