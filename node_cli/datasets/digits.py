"""The handwritten digits that come with scikit-learn: no download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from node_cli.datasets.assembling import assemble
from node_cli.datasets.base import Dataset, Split
from node_cli.datasets.splitting import stratified_splits


def digits(
    split_seed: int, val_fraction: float, test_fraction: float, crop_padding: int, flip: bool, normalize: bool
) -> Dataset:
    """1797 real handwritten digits as images `(1, 8, 8)`, ten classes.

    Both fractions are of all 1797.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (its test set).

    Raises:
        ValueError: a key is out of range.
    """
    source = load_digits()
    inputs = torch.from_numpy(source.images).float().div_(16).unsqueeze(1)
    samples = Split(inputs, torch.from_numpy(source.target).long())
    splits = stratified_splits(samples, {"test": test_fraction, "val": val_fraction}, split_seed)
    return assemble(splits, tuple(str(digit) for digit in range(10)), crop_padding, flip, normalize)
