"""Which times of a series are hidden, to see how well a model does with fewer."""

from __future__ import annotations

from dataclasses import replace

import torch

from node_cli.batch import independent_generator
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.raw import RawSeries, Series


def with_drops(raw: RawSeries, keys: SeriesKeys) -> RawSeries:
    """Hides `keys.drop` of the times of each series, of those alone that it has for training.

    Which ones depends on the seed, the place of the series among the others, and its number of times. The first time
    stays, and at least one more.
    """
    return replace(raw, series=tuple(_dropped(raw, keys, number) for number in range(len(raw.series))))


def _dropped(raw: RawSeries, keys: SeriesKeys, number: int) -> Series:
    series = raw.series[number]
    dropped = torch.zeros(len(series.times), dtype=torch.bool)
    available = len(series.times[: raw.train_times])
    count = max(0, min(int(keys.drop * available + 0.5), available - 2))
    if count:
        order = torch.randperm(available - 1, generator=independent_generator(keys.split_seed, number))
        dropped[1 + order[:count]] = True
    return replace(series, dropped=dropped)
