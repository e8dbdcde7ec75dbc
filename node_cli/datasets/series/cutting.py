"""Which rows of which series are a sample of which split."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from node_cli.datasets.series.keys import SeriesKeys, count_of
from node_cli.datasets.series.raw import RawSeries, Series

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
LEAST = 2  # times that a series must have for training
ROUNDING = 1e-6  # of a horizon


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
        train_rows: those that each series has for training, by its index.
    """

    samples: dict[str, list[Sample]]
    train_rows: Mapping[int, slice]


def cut(raw: RawSeries, keys: SeriesKeys) -> Cut:
    """The samples of every split; a split of which the key is 0 has those of the training.

    Raises:
        ValueError: nothing is left for a split, or a key has no effect.
    """
    _require_effect(raw, keys)
    made = _by_time(raw, keys) if keys.split == "time" else _by_series(raw, keys)
    for name in ("val", "test"):
        if getattr(keys, name) == 0:
            log.warning("dataset.%s=0: there is no %s split, so %s stands for the training data again", *[name] * 3)
            made.samples[name] = made.samples["train"]
    return made


def _require_effect(raw: RawSeries, keys: SeriesKeys) -> None:
    idle = {
        "with dataset.split=time": keys.split == "time",
        f"on series that are split by their {raw.period_name}": raw.period_name != "",
        "with dataset.val=0 and dataset.test=0": not (keys.val or keys.test),
    }
    if keys.split == "series" and raw.test_series and keys.test is not None:
        raise ValueError(f"test must be null, as the dataset has test series of its own, got {keys.test}")
    for where in [where for where, holds in idle.items() if holds and keys.split_seed and not keys.drop]:
        raise ValueError(f"split_seed has no effect {where}, got {keys.split_seed}: set it to 0")
    if raw.train_times is not None and keys.context > raw.train_times:
        raise ValueError(f"context must be at most the {raw.train_times} times that training has, got {keys.context}")
    if raw.horizon is not None and keys.window is not None:
        raise ValueError(f"window has no effect with dataset.horizon={raw.horizon:g}: set one of them to null")
    if raw.horizon is None and keys.window is None:
        if keys.stride != 1:
            raise ValueError(f"stride has no effect without dataset.window, got {keys.stride}: set it to 1")
        if keys.context != 1 and keys.split == "time":
            raise ValueError(
                f"context has no effect with dataset.split=time and no dataset.window, got {keys.context}: set it to 1"
            )


def _by_time(raw: RawSeries, keys: SeriesKeys) -> Cut:
    ends = {}  # where train, val and test end
    for number, series in enumerate(raw.series):
        total = len(series.times)
        unit = f"times of series {series.name}"
        val, test = (count_of(name, getattr(keys, name), total, unit) for name in ("val", "test"))
        left = total - val - test
        if left < LEAST:
            raise ValueError(
                f"dataset.val={keys.val}, dataset.test={keys.test}: series {series.name} has {total} times, which "
                f"leaves {max(left, 0)} for training; at least {LEAST} are needed"
            )
        if keys.drop and (kept := int((~series.dropped[:left]).sum())) < LEAST:
            raise ValueError(
                f"dataset.drop={keys.drop:g}: series {series.name} keeps {kept} of its {left} times for training; at "
                f"least {LEAST} are needed"
            )
        ends[number] = (0, left, left + val, total)
    samples = {}
    for k, name in enumerate(SPLITS):
        if name == "train" or getattr(keys, name) != 0:
            found = {number: list(_of_stretch(raw, keys, number, *of_it[k : k + 2])) for number, of_it in ends.items()}
            samples[name] = _sound(raw, keys, name, found)
    return Cut(samples, {number: slice(0, of_it[1]) for number, of_it in ends.items()})


def _by_series(raw: RawSeries, keys: SeriesKeys) -> Cut:
    members = _members_of_splits(raw, keys)
    lengths = [len(series.times) for series in raw.series]
    is_cut = keys.window is not None or raw.horizon is not None
    samples = {}
    for name, numbers in members.items():
        rows = {n: _train_rows(raw, n) if name == "train" else slice(0, lengths[n]) for n in numbers}
        if is_cut:
            found = {n: list(_of_stretch(raw, keys, n, each.start, each.stop)) for n, each in rows.items()}
        elif name == "train":
            seen = raw.train_times if raw.trains_beyond else None
            found = {n: [Sample(n, each.start, seen or each.stop, each.start, each.stop)] for n, each in rows.items()}
        else:
            shown = {n: min(keys.context, lengths[n]) for n in numbers}
            is_enough = {n: raw.targets is not None or lengths[n] > seen for n, seen in shown.items()}
            found = {n: [Sample(n, 0, seen, seen, lengths[n])] * is_enough[n] for n, seen in shown.items()}
        samples[name] = _sound(raw, keys, name, found)
    return Cut(samples, {number: _train_rows(raw, number) for number in members["train"]})


def _train_rows(raw: RawSeries, number: int) -> slice:
    """Those that a series has for training, where whole series are split."""
    series = raw.series[number]
    count = len(series.times) if raw.train_times is None or raw.trains_beyond else raw.train_times
    return slice(series.train_start, min(series.train_start + count, len(series.times)))


def _members_of_splits(raw: RawSeries, keys: SeriesKeys) -> dict[str, list[int]]:
    """The series of each split.

    For test are those which the source has for it, or the last periods, or what the seed chooses; for val likewise.
    """
    periods = [number if each.period is None else each.period for number, each in enumerate(raw.series)]
    groups = sorted(set(periods) - set(raw.test_series))
    are_single = all(each.period is None for each in raw.series)
    unit = raw.period_name or ("series" if are_single else "groups of series")
    asked = {name: getattr(keys, name) for name in (("val",) if raw.test_series else ("val", "test"))}
    counts = {name: count_of(name, number, len(groups), unit) for name, number in asked.items()}
    test = counts.get("test", 0)
    middle, end = len(groups) - test - counts["val"], len(groups) - test
    if middle < 1:
        told = ", ".join(f"dataset.{name}={number}" for name, number in asked.items())
        raise ValueError(
            f"{told}: there are {len(groups)} {unit}, which leaves none for training"
            + ("" if len(groups) > 1 else "; dataset.split=time splits a single one")
        )
    if not raw.period_name:
        groups = _shuffled(raw.targets if are_single and raw.class_names else None, groups, keys.split_seed)
    chosen = {"train": groups[:middle], "val": groups[middle:end], "test": [*groups[end:], *raw.test_series]}
    return {
        name: [number for number, period in enumerate(periods) if period in set(some)]
        for name, some in chosen.items()
        if some
    }


def _shuffled(classes: Tensor | None, numbers: list[int], seed: int) -> list[int]:
    """Some numbers in a random order; every stretch of it has each class in about the same proportion."""
    order = torch.tensor(numbers)[torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))]
    if classes is None:
        return order.tolist()
    is_of = one_hot(classes[order], int(classes.max()) + 1)
    places = ((is_of.cumsum(0) - 0.5) / is_of.sum(0) * is_of).sum(1)
    return order[places.argsort(stable=True)].tolist()


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
        wanted, nearly = times[seen - 1] + horizon, ROUNDING * horizon
        end = bisect.bisect_left(times, wanted - nearly)
        if end < stop and times[end] <= wanted + nearly:
            yield Sample(number, begin, seen, seen, end + 1)


def _sound(raw: RawSeries, keys: SeriesKeys, name: str, found: Mapping[int, list[Sample]]) -> list[Sample]:
    """The samples of a split, given by their series, of which something both seen and to be predicted was observed.

    Where series have labels, which are told from all of a sample, what is seen reaches to the first observation at
    least, and nothing needs to be left to predict.
    """
    are_told = raw.targets is not None and keys.split == "series"
    kept = []
    for number, samples in found.items():
        series = raw.series[number]
        observed = series.values.isfinite().any(dim=1)
        shown = [0, *(observed & ~series.dropped).cumsum(0).tolist()]
        counts = shown if name == "train" else [0, *observed.cumsum(0).tolist()]
        samples = [_reaching(each, shown) for each in samples] if are_told else samples
        kept += [
            each
            for each in samples
            if shown[each.seen] > shown[each.start] and (are_told or counts[each.stop] > counts[each.target])
        ]
    total = sum(map(len, found.values()))
    if not any(each.stop > each.target for each in kept):
        raise ValueError(_nothing_left(raw, keys, name, 0 if kept else total))
    if len(kept) < total:
        told = "nothing was observed in what the model sees, or in what it is to predict"
        log.info("dataset: %d of %d samples of %s are left out: %s", total - len(kept), total, name, told)
    if empty := sum(not samples for samples in found.values()):
        log.info("dataset: %d of %d series of %s are too short for a sample and are left out", empty, len(found), name)
    return kept


def _reaching(sample: Sample, shown: Sequence[int]) -> Sample:
    """The sample, with the first observation among what is seen; `shown` counts those before each row."""
    first = bisect.bisect_right(shown, shown[sample.start])
    if first <= sample.seen or first > sample.stop:
        return sample
    return sample._replace(seen=first, target=first)


def _nothing_left(raw: RawSeries, keys: SeriesKeys, name: str, num_found: int) -> str:
    if num_found:
        return f"dataset: no sample of {name} has an observed value both in what the model sees and in what it predicts"
    longest = f"the longest series has {max(len(series.times) for series in raw.series)} times"
    if raw.horizon is not None:
        return f"dataset.horizon={raw.horizon:g}: no window of {name} ends so long after what is seen; {longest}"
    if keys.window is None:
        return f"dataset.context={keys.context}: no series of {name} has more times than that; {longest}"
    forecast = f"and a window forecasts {keys.window - keys.context} times"
    amount = "" if name == "train" or keys.split == "series" else f" (dataset.{name}={getattr(keys, name)}, {forecast})"
    return (
        f"dataset.window={keys.window}, dataset.context={keys.context}: no window fits into {name}{amount}; {longest}"
    )
