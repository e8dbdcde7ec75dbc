"""Which rows of which series are a sample of which split."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from node_cli.datasets.series.keys import SeriesKeys, count_of
from node_cli.datasets.series.raw import RawSeries, Series

log = logging.getLogger(__name__)

LEAST = 2  # times that a series must have for training


class Sample(NamedTuple):
    """Rows `start` to `stop` of a series: those before `seen` are history, an error counts from `target` on."""

    series: int
    start: int
    seen: int
    target: int
    stop: int


@dataclass(frozen=True)
class Cut:
    """The samples of each split.

    Attributes:
        samples: of "train", "val" and "test".
        train_rows: how many of its first times each series has for training, by its index.
    """

    samples: Mapping[str, list[Sample]]
    train_rows: Mapping[int, int]


def cut(raw: RawSeries, keys: SeriesKeys) -> Cut:
    """The samples of every split; a split of which the key is 0 has those of the training.

    Raises:
        ValueError: nothing is left for a split.
    """
    made = _by_time(raw, keys) if keys.split == "time" else _by_series(raw, keys)
    for name in ("val", "test"):
        if not getattr(keys, name):
            log.warning("dataset.%s=0: there is no %s split, so %s stands for the training data again", *[name] * 3)
            made.samples[name] = made.samples["train"]  # type: ignore[index]
    return made


def _by_time(raw: RawSeries, keys: SeriesKeys) -> Cut:
    ends = {}  # where train, val and test end
    for number, series in enumerate(raw.series):
        total = len(series.times)
        val, test = (count_of(name, getattr(keys, name), total, "times") for name in ("val", "test"))
        left = total - val - test
        if left < LEAST:
            raise ValueError(
                f"dataset.val={keys.val}, dataset.test={keys.test}: series {series.name} has {total} times, which "
                f"leaves {max(left, 0)} for training; at least {LEAST} are needed"
            )
        ends[number] = (left, left + val, total)
    samples: dict[str, list[Sample]] = {}
    for name, begin, end in (("train", None, 0), ("val", 0, 1), ("test", 1, 2)):
        if name != "train" and not getattr(keys, name):
            continue
        found = []
        for number, of_series in ends.items():
            start = 0 if begin is None else of_series[begin]
            found += list(_of_stretch(raw, keys, number, start, of_series[end]))
        samples[name] = _sound(raw, keys, name, found)
    return Cut(samples, {number: end[0] for number, end in ends.items()})


def _by_series(raw: RawSeries, keys: SeriesKeys) -> Cut:
    members = _members_of_splits(raw, keys)
    samples: dict[str, list[Sample]] = {}
    for name, numbers in members.items():
        found: list[Sample] = []
        for number in numbers:
            total = len(raw.series[number].times)
            if keys.window is None and raw.horizon is None and name != "train":
                if total <= keys.context:
                    raise ValueError(
                        f"dataset.context={keys.context}: series {raw.series[number].name} of {name} has {total} "
                        "times, which leaves none to forecast"
                    )
                found.append(Sample(number, 0, keys.context, keys.context, total))
            else:
                found += list(_of_stretch(raw, keys, number, 0, total))
        samples[name] = _sound(raw, keys, name, found)
    return Cut(samples, {number: len(raw.series[number].times) for number in members["train"]})


def _members_of_splits(raw: RawSeries, keys: SeriesKeys) -> dict[str, list[int]]:
    """The series of each split: the last periods are test, or, where there are none, what the seed chooses."""
    periods = [number if each.period is None else each.period for number, each in enumerate(raw.series)]
    groups = sorted(set(periods))
    unit = "periods" if raw.has_periods else "series"
    val, test = (count_of(name, getattr(keys, name), len(groups), unit) for name in ("val", "test"))
    if val + test >= len(groups):
        raise ValueError(
            f"dataset.val={keys.val}, dataset.test={keys.test}: there are {len(groups)} {unit}, which leaves none for "
            "training" + ("" if len(groups) > 1 else "; dataset.split=time splits a single one")
        )
    if not raw.has_periods:
        order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(keys.split_seed)).tolist()
        groups = [groups[index] for index in order]
    end, middle = len(groups) - test, len(groups) - test - val
    chosen = {"train": groups[:middle], "val": groups[middle:end], "test": groups[end:]}
    return {
        name: [number for number, period in enumerate(periods) if period in set(some)]
        for name, some in chosen.items()
        if some
    }


def _of_stretch(raw: RawSeries, keys: SeriesKeys, number: int, start: int, stop: int) -> Iterator[Sample]:
    """The samples whose targets lie in the rows `start` to `stop`; what they see may lie before."""
    first = max(0, start - keys.context)
    if raw.horizon is not None:
        yield from _windows_of_time(raw.series[number], keys, raw.horizon, number, first, stop)
    elif keys.window is not None:
        last = stop - keys.window
        starts = range(first, last + 1, keys.stride)
        for begin in starts if not starts or starts[-1] == last else (*starts, last):
            seen = begin + keys.context
            yield Sample(number, begin, seen, seen, begin + keys.window)
    elif start:
        yield Sample(number, 0, start, start, stop)
    else:
        yield Sample(number, 0, stop, 0, stop)


def _windows_of_time(
    series: Series, keys: SeriesKeys, horizon: float, number: int, first: int, stop: int
) -> Iterator[Sample]:
    """Windows whose last time lies `horizon` after the last one that is seen; there may be no row at it."""
    times = series.times[:stop].tolist()
    for begin in range(first, stop - keys.context, keys.stride):
        seen = begin + keys.context
        end = bisect.bisect_left(times, times[seen - 1] + horizon)
        if end < stop and times[end] == times[seen - 1] + horizon:
            yield Sample(number, begin, seen, seen, end + 1)


def _sound(raw: RawSeries, keys: SeriesKeys, name: str, samples: list[Sample]) -> list[Sample]:
    """The samples of which something is seen and something to be predicted was observed."""
    observed: list[list[int]] = [series.values.isfinite().any(dim=1).cumsum(0).tolist() for series in raw.series]

    def count(sample: Sample, start: int, stop: int) -> int:
        counts = observed[sample.series]
        return counts[stop - 1] - (counts[start - 1] if start else 0)

    kept = [
        sample
        for sample in samples
        if count(sample, sample.start, sample.seen) and count(sample, sample.target, sample.stop)
    ]
    if not kept:
        raise ValueError(_nothing_left(raw, keys, name, len(samples)))
    if len(kept) < len(samples):
        told = "nothing observed in what the model sees, or in what it is to predict"
        log.warning(
            "dataset: %d of %d samples of %s are left out: %s", len(samples) - len(kept), len(samples), name, told
        )
    short = (
        {*range(len(raw.series))} - {sample.series for sample in kept}
        if name == "train" and keys.split == "time"
        else ()
    )
    if short and keys.window is not None:
        log.warning("dataset.window=%d: %d series have too few times for it and are left out", keys.window, len(short))
    return kept


def _nothing_left(raw: RawSeries, keys: SeriesKeys, name: str, num_found: int) -> str:
    if num_found:
        return f"dataset: no sample of {name} has an observed value both in what the model sees and after it"
    if keys.window is None:
        return f"dataset: no window of {name} ends {raw.horizon:g} after what is seen"
    longest = max(len(series.times) for series in raw.series)
    amount = "" if name == "train" or keys.split == "series" else f" (dataset.{name}={getattr(keys, name)})"
    return (
        f"dataset.window={keys.window}, dataset.context={keys.context}: no window fits into {name}{amount}; the "
        f"longest series has {longest} times in all"
    )
