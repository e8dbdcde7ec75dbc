"""Eruptions of Old Faithful that come with the package."""

from __future__ import annotations

from pathlib import Path

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.rows import read_rows, rows_dataset
from node_cli.datasets.splitting import stratified_splits

TABLE = Path(__file__).with_name("files") / "faithful.csv"


def faithful(split_seed: int, val_fraction: float, test_fraction: float, normalize: bool) -> Dataset:
    """272 eruptions of the geyser Old Faithful: how long each took, and the time to the next, both in minutes.

    Source: Azzalini and Bowman, A look at some data on the Old Faithful geyser, Applied Statistics 39, 1990; the table
    is that of R.

    Raises:
        ValueError: a key is out of range.
    """
    raw = read_rows(str(TABLE), None, None)
    splits = stratified_splits({"inputs": raw.values}, {"test": test_fraction, "val": val_fraction}, split_seed)
    return rows_dataset(splits, raw.names, normalize=normalize)
