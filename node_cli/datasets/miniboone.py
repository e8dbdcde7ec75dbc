"""Events of a neutrino experiment, as densities are compared on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.download import given
from node_cli.datasets.rows import rows_dataset

NAME = "MiniBooNE_PID.txt"
SOURCE = "https://archive.ics.uci.edu/dataset/199/miniboone+particle+identification"
OUTLIER = -100.0  # events whose first column is below it failed
MOST_OFTEN = 5  # times that the smallest value of a column may occur
FRACTION = 0.1  # of the last events: for test, and then for val


def miniboone(data_dir: str, normalize: bool) -> Dataset:
    """Electron neutrinos as points, without classes: in the literature 36,488 of them, `(43,)`.

    The recipe is that of MINIBOONE in Papamakarios et al.: the signal events without those that failed, columns
    without a smallest value that keeps coming back; the last tenth is test, the last tenth of the others val. Means
    and stds are those of train alone, theirs of train and val.

    Args:
        data_dir: its subfolder miniboone has the file, which nobody publishes a hash of: it is not downloaded.
        normalize: to mean 0 and std 1 for each column, measured on train.

    Source: Roe et al., Boosted decision trees as an alternative to artificial neural networks for particle
    identification, 2005; UCI Machine Learning Repository, CC BY 4.0. The recipe: arXiv 1705.07057.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is not what it should be.
    """
    path = given(Path(data_dir) / "miniboone" / NAME, SOURCE)
    names, values = _signal(path)
    sizes = _sizes(len(values))
    parts = zip(("train", "val", "test"), values.split(sizes), strict=True)
    return rows_dataset({name: {"inputs": part} for name, part in parts}, names, normalize=normalize)


def _signal(path: Path) -> tuple[tuple[str, ...], Tensor]:
    """The names of the columns, and the events `(n, d)` in float64."""
    try:
        with path.open(encoding="utf-8") as stream:
            num_signal, num_background = map(int, stream.readline().split())
            table = torch.from_numpy(np.loadtxt(stream, ndmin=2))
    except (ValueError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{path}: must have two counts, and then a row of numbers for each event ({told})") from error
    if not table.isfinite().all():
        raise ValueError(f"{path}: holds numbers that are NaN or infinite")
    if len(table) != num_signal + num_background:
        raise ValueError(f"{path}: has {len(table):,} events, its first row says {num_signal + num_background:,}")
    signal = table[:num_signal]
    signal = signal[signal[:, 0] >= OUTLIER]
    often = (signal == signal.amin(0)).sum(0)
    kept = (often <= MOST_OFTEN).nonzero().flatten().tolist()
    return tuple(f"c{place + 1}" for place in kept), signal[:, kept]


def _sizes(total: int) -> tuple[int, int, int]:
    test = int(FRACTION * total)
    val = int(FRACTION * (total - test))
    return total - test - val, val, test
