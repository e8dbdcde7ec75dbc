"""A user's own series in an .npz file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from node_cli.datasets.array_labels import array_labels, column_names, entry_names
from node_cli.datasets.npz_file import array_names, read_arrays
from node_cli.datasets.series.new_data import checked_series
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.series import CONTROLS, STATICS, TIMES, VALUES

NAMES = "series"  # the array of what the series are called
COLUMNS = {VALUES: "channel", CONTROLS: "control", STATICS: "static"}  # and what their columns are called otherwise
DIMENSIONS = {VALUES: 3, CONTROLS: 3, STATICS: 2}
KNOWN = (TIMES, *COLUMNS, NAMES, *(f"{name}_columns" for name in COLUMNS))


def series_of_arrays(path: str, arrays: Mapping[str, np.ndarray], label: str | Sequence[str] | None) -> RawSeries:
    """Series of `times` `(n, T)` and `values` `(n, T, channels)`, with `controls`, `statics` and labels, if any.

    Args:
        path: for messages.
        arrays: of the file, those of `KNOWN` and of the labels.
        label: as in `array_labels`; None: nothing is told of the series.

    Raises:
        ValueError: an array is missing, or not what it should be.
    """
    given = {name: arrays[name] for name in (TIMES, *COLUMNS) if name in arrays}
    sizes = {name: given[name].shape[-1] for name in given if given[name].ndim == DIMENSIONS.get(name)}
    wanted = [
        sizes.get(name, f"{default}s" if name in given or name == VALUES else 0) for name, default in COLUMNS.items()
    ]
    try:
        tensors = checked_series(given, wanted)
    except ValueError as error:
        raise ValueError(f"dataset.path: {path}: {error}") from error
    times, values = tensors[TIMES], tensors[VALUES]
    nothing = values[..., :0]
    controls, statics = tensors.get(CONTROLS, nothing), tensors.get(STATICS, nothing[:, 0])
    count = len(times)
    called = entry_names(path, NAMES, arrays[NAMES], count) if NAMES in arrays else tuple(map(str, range(count)))
    series = []
    for k, (name, length) in enumerate(zip(called, (1 + (times.diff(dim=1) > 0).sum(1)).tolist(), strict=True)):
        if length < 2:
            raise ValueError(f"dataset.path: {path}: series {name} has 1 time; at least 2 are needed")
        series.append(Series(name, times[k, :length], values[k, :length], controls[k, :length], statics[k]))
    channel_names, control_names, static_names = (
        column_names(path, arrays, name, sizes[name], default) if sizes.get(name) else ()
        for name, default in COLUMNS.items()
    )
    raw = RawSeries(tuple(series), channel_names, control_names, static_names)
    return raw if label is None else replace(raw, **vars(array_labels(path, arrays, label, count)))


def names_of_series(path: Path) -> tuple[str, ...] | None:
    """What the series of a file are called; None: they have no names.

    Raises:
        FileNotFoundError, ValueError: as `read_arrays`; or they are no names.
    """
    names = array_names(path)
    if NAMES not in names:
        return None
    called = read_arrays(path, (NAMES,), [name for name in names if name != NAMES])[NAMES]
    return entry_names(str(path), NAMES, called, len(called) if called.ndim else 0)
