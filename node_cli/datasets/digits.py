"""Handwritten digits that come with the package: no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from node_cli.datasets.assembling import assemble
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.splitting import stratified_splits

PIXELS_AND_TARGET = Path(__file__).with_name("files") / "digits.csv.gz"  # 64 whole numbers from 0 to 16, and a digit

HIGHEST = 16.0  # of a pixel


def digits(
    split_seed: int, val_fraction: float, test_fraction: float, crop_padding: int, flip: bool, normalize: bool
) -> Dataset:
    """1797 real handwritten digits as images `(1, 8, 8)`, ten classes.

    Both fractions are of all 1797.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (its test set), CC BY 4.0; the
    file is that of scikit-learn, whose import takes longer than a short run.

    Raises:
        ValueError: a key is out of range.
    """
    rows = torch.from_numpy(np.loadtxt(PIXELS_AND_TARGET, dtype=np.int64, delimiter=","))
    inputs, targets = rows[:, :-1].float().div_(HIGHEST).view(-1, 1, 8, 8), rows[:, -1].clone()
    samples = {"inputs": inputs, "targets": targets}
    splits = stratified_splits(samples, {"test": test_fraction, "val": val_fraction}, split_seed)
    class_names = tuple(str(digit) for digit in range(10))
    return assemble(splits, class_names, crop_padding, flip, normalize, highest=HIGHEST)
