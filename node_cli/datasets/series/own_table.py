"""A user's own table in a text file: series, or, without a column of times, independent rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.labels import OFFERS, labelled
from node_cli.datasets.rows import RawRows, read_rows, rows_dataset
from node_cli.datasets.series.assembling import assemble
from node_cli.datasets.series.cells import shown
from node_cli.datasets.series.csv_rows import read_table
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.raw import RawSeries
from node_cli.datasets.series.source import with_keys
from node_cli.datasets.series.table import read_series
from node_cli.datasets.splitting import splits_by_keys
from node_cli.dates import KINDS
from node_cli.series import TARGETS

MAX_UNIT = 20  # characters
UNLABELLED = (
    "dataset: these rows have no labels: set dataset.label to the column of what is to be told, or take task=density"
)
NAMES = ("time_name", "channel_names", "control_names", "static_names")  # offers
OF_SERIES = {"split": "time", "window": None, "stride": 1, "context": 1, "log": False, "time_scale": None, "drop": 0.0}


def own_series(raw: RawSeries, keys: SeriesKeys) -> Dataset:
    """The dataset of series, whose labels a key has asked for."""
    if raw.targets is not None and keys.split == "time":
        raise ValueError("label needs dataset.split=series: with split=time every series is in every split")
    return assemble(raw, keys)


def series_or_rows(made: RawSeries | RawRows, keys: SeriesKeys) -> Dataset:
    """The dataset of a table; rows are split at random, and offer no series."""
    if isinstance(made, RawSeries):
        return own_series(made, keys)
    refuse_keys({key: getattr(keys, key) for key in OF_SERIES}, OF_SERIES)
    lacks = {"units": _needs_time(made.path, made.shown_names)}
    told, samples = made.labels, {"inputs": made.values}
    if told is None:
        splits = splits_by_keys(samples, keys, made.path)
        lacks |= dict.fromkeys(OFFERS, UNLABELLED)
    else:
        splits = splits_by_keys({**samples, TARGETS: told.targets}, keys, made.path, class_names=told.class_names)
    dataset = replace(rows_dataset(splits, made.names, normalize=keys.normalize), lacks=lacks)
    if told is None:
        return dataset
    return labelled(dataset, told.class_names, told.target_names, normalize=keys.normalize)


@partial(with_keys, kind=SeriesKeys, then=series_or_rows)
def own_table(
    path: str | None,
    time: str | None,
    columns: list[str] | None,
    series: str | None,
    controls: list[str],
    statics: list[str],
    label: str | list[str] | None,
    long: list[str] | None,
    positions: list[str],
    time_unit: str | None,
    units: list[str] | None,
    delimiter: str | None,
) -> RawSeries | RawRows:
    """Series or rows from a delimited text file with a header, in UTF-8.

    Args:
        path: the file; required.
        time: the column of times, which increase within a series: numbers, or ISO dates; None: there is none, rows are
            independent, and no key of series is given.
        columns: those of values, or, of a long table, the variables; None: all others.
        series: the column that says which series a row belongs to; None: the file holds one.
        controls: columns that are known at all times.
        statics: columns that do not change within a series.
        label: the column of what is to be told of each series, or row: words or whole numbers are classes, other
            numbers, and all those of a list of columns, are values; None: nothing is.
        long: the column that names what was measured, and that of its value; None: each has a column of its own.
        positions: a latitude and a longitude in degrees among the values, or nothing.
        time_unit: a word for the axis, such as day; None: none, and day for dates.
        units: a word for the unit of each channel, in their order; None: not known.
        delimiter: comma, semicolon, tab or bar; None: the one that the header has.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file or a key is not what it should be.
    """
    if columns == []:
        raise ValueError("columns must name at least one column of values, or be null for all others, got []")
    if label == []:
        raise ValueError("label must name a column, or a list of columns of numbers, or be null, got []")
    if path is None:
        series_too = "" if time else ", and, of series, dataset.time=..."
        raise ValueError(f"dataset.path is required: set dataset.path=...{series_too}")
    if time is None:
        if series is not None or long is not None or controls or statics or positions:
            raise ValueError(_needs_time(path, read_table(path, delimiter).shown_names))
        refuse_keys({"time_unit": time_unit, "units": units}, {"time_unit": None, "units": None})
        return read_rows(path, columns, delimiter, label)
    if label is not None and series is None:
        raise ValueError(f"label={label} needs dataset.series, the column that says which series a row belongs to")
    raw = read_series(path, time, columns, series, controls, statics, long, delimiter, label)
    for column, name in enumerate(raw.channel_names):
        if all(each.values[:, column].isnan().all() for each in raw.series):
            raise ValueError(f"dataset.columns: {path} has no value in column {name}; leave it out")
    unit, places = _unit(time_unit, raw.calendar), _positions(positions, raw.channel_names)
    return replace(
        raw, time_unit=unit, position_channels=places, channel_units=_channel_units(units, raw.channel_names)
    )


def read_new_series(path: str, offers: Mapping[str, Any], keys: Mapping[str, Any]) -> RawSeries:
    """New series for a model, from a table whose columns are called as those that it was trained on.

    Args:
        path: the file.
        offers: of the dataset that the model was trained on.
        keys: of that dataset: `series`, `long` and `delimiter`, if it was read from a table too.

    Raises:
        FileNotFoundError, ValueError: as `own_table`; or the times are of another kind.
    """
    time, columns, controls, statics = (offers[name] for name in NAMES)
    layout = [keys.get(name) for name in ("series", "long", "delimiter")]
    raw = read_series(path, time, list(columns), layout[0], list(controls), list(statics), *layout[1:])
    if raw.calendar != offers["calendar"]:
        wanted, found = KINDS[offers["calendar"]], KINDS[raw.calendar]
        raise ValueError(f"dataset.path: {path}, column {time} must hold {wanted}, as in training, and holds {found}")
    return raw


def _needs_time(path: str, names: str) -> str:
    return f"dataset.time is required: set it to the column of times of {path}, whose columns are {names}"


def refuse_keys(keys: Mapping[str, Any], unused: Mapping[str, Any], where: str = "without dataset.time") -> None:
    """Refuses keys of series, for what is none, that do not have the value which says nothing.

    Raises:
        ValueError: a key has another value.
    """
    for key, value in keys.items():
        if value != unused[key]:
            raise ValueError(f"dataset.{key}={value} has no effect {where}: leave it out")


def _unit(time_unit: str | None, calendar: str) -> str:
    if calendar and time_unit not in (None, "day"):
        raise ValueError(f"time_unit must be day, or null, as dates are counted in days, got {time_unit!r}")
    if time_unit is not None and not _is_unit(time_unit):
        raise ValueError(f"time_unit must be a word such as day, or null, got {shown(time_unit)}")
    return time_unit or ("day" if calendar else "")


def _channel_units(units: list[str] | None, channels: Sequence[str]) -> tuple[str, ...]:
    if units is None:
        return ()
    if len(units) != len(channels) or not all(isinstance(unit, str) and _is_unit(unit) for unit in units):
        raise ValueError(f"units must be a word for each of {', '.join(channels)}, or null, got {units}")
    return tuple(units)


def _is_unit(word: str) -> bool:
    return word.isprintable() and 0 < len(word) <= MAX_UNIT


def _positions(names: list[str], channels: Sequence[str]) -> tuple[int, ...]:
    if names and (len(names) != 2 or not set(names) <= set(channels)):
        raise ValueError(f"positions must be the latitude and the longitude among {', '.join(channels)}, got {names}")
    return tuple(channels.index(name) for name in names)
