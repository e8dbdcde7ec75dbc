"""Which times of a series are hidden, to see how well a model does with fewer."""

from __future__ import annotations

from dataclasses import replace

import torch

from node_cli.batch import independent_generator
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.raw import RawSeries, Series


def with_drops(raw: RawSeries, keys: SeriesKeys) -> RawSeries:
    """Hides `keys.drop` of the times of each series; where it has some of them alone for training, of each such piece.

    Which ones depends on the seed, the place of the series among the others, and its number of times. The first time of
    a piece stays, and at least one more.
    """
    return replace(raw, series=tuple(_dropped(raw, keys, number) for number in range(len(raw.series))))


def _dropped(raw: RawSeries, keys: SeriesKeys, number: int) -> Series:
    series = raw.series[number]
    dropped = torch.zeros(len(series.times), dtype=torch.bool)
    generator = independent_generator(keys.split_seed, number)
    for piece in dropped.split(raw.train_times or len(dropped)):
        count = max(0, min(int(keys.drop * len(piece) + 0.5), len(piece) - 2))
        if count:
            piece[1 + torch.randperm(len(piece) - 1, generator=generator)[:count]] = True
    return replace(series, dropped=dropped)
