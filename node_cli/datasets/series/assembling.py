"""From raw series to a dataset: cut into samples, scaled as train says, padded."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import torch
from torch import Tensor

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.digest import exact_digest
from node_cli.datasets.labels import OFFERS, labelled
from node_cli.datasets.series.cutting import Cut, Sample, cut
from node_cli.datasets.series.dropping import with_drops
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.scaling import SeriesScaling, channels_last, chosen_time_scale, fit_columns, unscaled
from node_cli.series import CONTROLS, DROPPED, MASK, START, STATICS, TARGET, TARGETS, TIMES, TRUTH, VALUES, Units

BY_TIME = "dataset.split=time has every series, and so its label, in every split: set dataset.split=series"
UNLABELLED = (
    "dataset: these series have no labels: take task=trajectory, set dataset.label of dataset=csv or npz, or take a "
    "dataset with classes, such as japanese_vowels"
)
Drops = Literal["none", "left out", "targets", "hidden"]  # what becomes of dropped times


def assemble(raw: RawSeries, keys: SeriesKeys) -> Dataset:
    """The dataset of the series, split, cut and scaled.

    Raises:
        ValueError: a key leaves a split without samples, or the values do not fit it.
    """
    if keys.log:
        _require_positive_values(raw)
    raw = with_drops(raw, keys)
    made = cut(raw, keys)
    scaling = _fit(raw, keys, made)
    flat = _Flat(raw, scaling)
    train = made.samples["train"]
    starts = {_start(sample): number for number, sample in enumerate(train)}
    is_told = raw.targets is not None and keys.split == "series"
    splits = {}
    for name, samples in made.samples.items():
        drops = _drops(keys, name, is_train=samples is train)
        splits[name] = flat.batch(samples, starts, drops)
        if raw.targets is not None and is_told:
            splits[name][TARGETS] = raw.targets[[sample.series for sample in samples]]
    dataset = Dataset(
        splits,
        {**_offers(raw, scaling, len(starts)), "train_ends": _train_ends(raw, keys, made)},
        digest=None if raw.is_computed else _digest(raw),
        sample_names={name: _names(raw, samples) for name, samples in made.samples.items()},
        lacks={} if is_told else dict.fromkeys(OFFERS, UNLABELLED if raw.targets is None else BY_TIME),
    )
    if not is_told:
        return dataset
    return labelled(dataset, raw.class_names, raw.target_names, normalize=keys.normalize)


def _names(raw: RawSeries, samples: list[Sample]) -> list[str]:
    """The series of each sample; of one that has several `name/1`, `name/2`, ..., and of a single one no name."""
    totals, counts = Counter(each.series for each in samples), Counter[int]()
    of_series, names = raw.names, []
    for number, *_ in samples:
        counts[number] += 1
        parts = [of_series[number]] if of_series[number] else []
        names.append("/".join([*parts, *([str(counts[number])] if totals[number] > 1 else [])]))
    return names


def _require_positive_values(raw: RawSeries) -> None:
    for series in raw.series:
        for row, column in (series.values <= 0).nonzero().tolist()[:1]:
            where = f"{series.place(row, column)}, column {raw.channel_names[column]}"
            raise ValueError(
                f"dataset.log=true needs values above 0: {where} has {series.values[row, column].item():g}; set "
                "dataset.log=false, or leave the value empty"
            )


def _fit(raw: RawSeries, keys: SeriesKeys, made: Cut) -> SeriesScaling:
    """Measures the training rows alone."""
    train = [(raw.series[number], _kept(raw.series[number], rows)) for number, rows in made.train_rows.items()]
    values = [series.values[rows] for series, rows in train]
    values = [each.log() for each in values] if keys.log else values
    if keys.normalize:
        scaling = fit_columns(torch.cat(values), raw.channel_names, "column")
        controls = statics = None
        if raw.control_names:
            controls = fit_columns(
                torch.cat([each.controls[rows] for each, rows in train]), raw.control_names, "control"
            )
        if raw.static_names:
            statics = fit_columns(torch.stack([each.statics for each, _ in train]), raw.static_names, "static")
    else:
        scaling, controls, statics = unscaled(len(raw.channel_names)), None, None
    start = min(series.times[0].item() for series, _ in train)
    scale = keys.time_scale
    if scale is None:
        scaled = [channels_last(scaling, each) for each in values]
        pairs = [(series.times[rows], each) for (series, rows), each in zip(train, scaled, strict=True)]
        scale = chosen_time_scale(pairs)
    return SeriesScaling(Units(*scaling, keys.log, start, float(scale)), controls, statics)


def _drops(keys: SeriesKeys, name: str, *, is_train: bool) -> Drops:
    """What becomes of dropped times in a split.

    They count once: those before the test times of a series do in val, by which models are chosen.
    """
    if not keys.drop:
        return "none"
    if is_train:
        return "left out"
    return "hidden" if name == "test" and keys.split == "time" else "targets"


def _kept(series: Series, rows: slice) -> Tensor:
    """Which of these rows of a series are not dropped."""
    return torch.arange(rows.start, rows.stop)[~series.dropped[rows]]


def _start(sample: Sample) -> tuple[int, int]:
    """What samples with the same first state share: their series, and their first row."""
    return sample.series, sample.start


class _Flat:
    """All series below each other, scaled; samples are picked from them."""

    def __init__(self, raw: RawSeries, scaling: SeriesScaling) -> None:
        lengths = torch.tensor([len(series.times) for series in raw.series])
        self._offsets = lengths.cumsum(0) - lengths
        values = _in_float32("values", scaling.units.scaled(torch.cat([series.values for series in raw.series])))
        self._observed = ~values.isnan()
        self._dropped = torch.cat([series.dropped for series in raw.series])
        times = [scaling.units.scaled_times(series.times) for series in raw.series]
        _require_increase(raw, times)
        self._rows = {
            TIMES: torch.cat(times),
            VALUES: values.nan_to_num(0.0),
        }
        if raw.has_truth:
            truth = torch.cat([series.truth for series in raw.series])
            self._rows[TRUTH] = _in_float32("values", scaling.units.scaled(truth))
        if raw.control_names:
            controls = torch.cat([series.controls for series in raw.series])
            self._rows[CONTROLS] = _in_float32("controls", channels_last(scaling.controls, controls))
        self._statics = None
        if raw.static_names:
            statics = torch.stack([series.statics for series in raw.series])
            self._statics = _in_float32("statics", channels_last(scaling.statics, statics))

    def batch(self, samples: list[Sample], starts: dict[tuple[int, int], int], drops: Drops) -> dict[str, Tensor]:
        """The tensors of samples, padded to the longest; `starts` are the numbers of those of train."""
        series, start, seen, target, stop = torch.tensor(samples).T
        row = start[:, None] + torch.arange(int((stop - start).max()))
        is_real = row < stop[:, None]
        place = self._offsets[series][:, None] + row.minimum(stop[:, None] - 1)
        dropped = self._dropped[place]
        is_there = is_real & ~dropped if drops == "left out" else is_real
        observed = self._observed[place] & is_there[..., None]
        batch = {name: rows[place] for name, rows in self._rows.items()}
        batch[VALUES] = batch[VALUES] * observed
        batch[MASK] = observed & (~dropped & (row < seen[:, None]))[..., None]
        counts = row >= target[:, None]
        batch[TARGET] = observed & (counts | dropped if drops == "targets" else counts)[..., None]
        if drops != "none":
            batch[DROPPED] = dropped[..., None]
        if self._statics is not None:
            batch[STATICS] = self._statics[series]
        batch[START] = torch.tensor([starts.get(_start(sample), -1) for sample in samples])
        return batch


def _require_increase(raw: RawSeries, scaled: list[Tensor]) -> None:
    """In float64 the scaled times still differ."""
    for series, times in zip(raw.series, scaled, strict=True):
        if not (times.diff() > 0).all() or not times.isfinite().all():
            raise ValueError(
                f"dataset: the times of series {series.name} are too far apart, or too close to each other, to be told "
                "apart in float64"
            )


def _in_float32(name: str, scaled: Tensor) -> Tensor:
    tensor = scaled.float()
    if tensor.isinf().any():
        raise ValueError(f"dataset.normalize: the {name} are too large for float32; give them in another unit")
    return tensor


def _offers(raw: RawSeries, scaling: SeriesScaling, num_starts: int) -> dict[str, Any]:
    return {
        "num_channels": len(raw.channel_names),
        "num_controls": len(raw.control_names),
        "num_statics": len(raw.static_names),
        "num_starts": num_starts,
        "channel_names": raw.channel_names,
        "control_names": raw.control_names,
        "static_names": raw.static_names,
        "time_name": raw.time_name,
        "time_unit": raw.time_unit,
        "calendar": raw.calendar,
        "channel_units": raw.channel_units,
        "position_channels": raw.position_channels,
        "has_truth": raw.has_truth,
        "seen_times": raw.train_times or 0 if raw.trains_beyond else 0,
        **scaling.offers(),
    }


def _train_ends(raw: RawSeries, keys: SeriesKeys, made: Cut) -> tuple[float, ...]:
    """The last time for training of each start of train; none where whole series are split, or cut into windows."""
    if keys.split == "series" or keys.window is not None or raw.horizon is not None:
        return ()
    ends = ((raw.series[each.series], made.train_rows[each.series]) for each in made.samples["train"])
    return tuple(series.times[rows.stop - 1].item() for series, rows in ends)


def _digest(raw: RawSeries) -> str:
    """Of what was read."""
    read = {
        f"{number}": {
            TIMES: series.times,
            VALUES: series.values.nan_to_num(float("nan")),
            CONTROLS: series.controls,
            STATICS: series.statics,
        }
        for number, series in enumerate(raw.series)
    }
    return exact_digest(read if raw.targets is None else {**read, TARGETS: {TARGETS: raw.targets}})
