"""Letters as they were written on a tablet."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch

from node_cli.datasets.download import RemoteFile, fetch
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.source import series_dataset

# The hash is from users of the file; UCI publishes none.
ARCHIVE = RemoteFile(
    "character+trajectories.zip", "5d2db017ef0d8cf0e65ed060c9e90399f78eb9f1e3cb63e22ca8c3ef4ba67d52", 7_915_950
)
MEMBER = "mixoutALL_shifted.mat"
RATE = 200  # times of a second
CHANNELS = ("x_velocity", "y_velocity", "tip_force")


@series_dataset
def character_trajectories(data_dir: str, mirrors: list[str]) -> RawSeries:
    """2,858 letters of one writer, 20 of the alphabet, each about 109 to 205 times of pen velocity and tip force.

    Args:
        data_dir: its subfolder character_trajectories has the file, or gets it.
        mirrors: where to download from.

    Source: Williams, Toussaint, Storkey, Extracting Motion Primitives from Natural Handwriting Data, ICANN 2006; UCI
    Machine Learning Repository, CC BY 4.0. The archives of UEA and Kidger et al. 2020 have shortened series of the
    same letters.

    Raises:
        ValueError: the file is damaged.
        FileNotFoundError: it is neither there nor to be had.
    """
    path = fetch(ARCHIVE, Path(data_dir) / "character_trajectories", mirrors)
    series, labels, letters = _read(path)
    return RawSeries(
        tuple(
            Series(f"letter {number}", torch.arange(len(values)).double() / RATE, values)
            for number, values in enumerate(series, start=1)
        ),
        CHANNELS,
        time_unit="second",
        targets=labels,
        class_names=letters,
    )


def _read(path: Path) -> tuple[list[torch.Tensor], torch.Tensor, tuple[str, ...]]:
    """Values `(T, 3)` of each letter, its class, and the letters."""
    from scipy.io import loadmat  # only now: importing it takes a while

    with zipfile.ZipFile(path) as archive:
        content = loadmat(io.BytesIO(archive.read(MEMBER)), simplify_cells=True)
    try:
        series = [torch.from_numpy(np.array(values, dtype=np.float64).T.copy()) for values in content["mixout"]]
        labels = torch.from_numpy(np.array(content["consts"]["charlabels"], dtype=np.int64)) - 1
        letters = tuple(str(letter) for letter in content["consts"]["key"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {MEMBER} holds other arrays than mixout and consts ({error})") from error
    if len(series) != len(labels) or any(values.shape[1:] != (len(CHANNELS),) for values in series):
        raise ValueError(f"{path}: {MEMBER} must have three channels and a label for each letter")
    return series, labels, letters
