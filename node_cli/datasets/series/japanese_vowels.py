"""Spoken vowels that come with the package: which of nine men says them?"""

from __future__ import annotations

import torch

from node_cli.datasets.npz_file import read_arrays
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.source import series_dataset
from node_cli.datasets.series.tables import FILES

PARTS = ("train", "test")
ARRAYS = tuple(f"{part}_{kind}" for part in PARTS for kind in ("values", "lengths", "labels"))
NUM_SPEAKERS, NUM_COEFFICIENTS = 9, 12


@series_dataset
def japanese_vowels() -> RawSeries:
    """Twelve LPC cepstrum coefficients of nine men who say /ae/: 640 series of 7 to 29 frames, a class for each man.

    270 series, 30 of each man, are for training and validation, the other 370 are the official test series.

    Source: Kudo, Toyama, Shimbo, *Multidimensional Curve Classification Using Passing-Through Regions*, Pattern
    Recognition Letters 20, 1999; UCI Machine Learning Repository, CC BY 4.0.
    """
    arrays = read_arrays(FILES / "japanese_vowels.npz", ARRAYS)
    series: list[Series] = []
    for part in PARTS:
        values = torch.from_numpy(arrays[f"{part}_values"]).double()
        parts = values.split(arrays[f"{part}_lengths"].tolist())
        series += [Series(f"{part} {k}", torch.arange(len(each)).double(), each) for k, each in enumerate(parts, 1)]
    labels = torch.cat([torch.from_numpy(arrays[f"{part}_labels"]).long() for part in PARTS])
    return RawSeries(
        tuple(series),
        tuple(f"c{k}" for k in range(1, NUM_COEFFICIENTS + 1)),
        time_name="frame",
        targets=labels,
        class_names=tuple(f"speaker {k}" for k in range(1, NUM_SPEAKERS + 1)),
        test_series=range(len(arrays["train_labels"]), len(labels)),
    )
