"""From the cells of a table to series: which columns are what, and one row a time or one row a value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from node_cli.datasets.labels import listed
from node_cli.datasets.series.cells import check_name, number_in, reader_of_times, shown
from node_cli.datasets.series.csv_rows import Table, read_table
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.table_labels import read_labels

ONLY = ""  # the name of the series of a file that holds one


def read_series(
    path: str,
    time: str,
    columns: list[str] | None,
    series: str | None,
    controls: list[str],
    statics: list[str],
    long: list[str] | None,
    delimiter: str | None,
    label: str | list[str] | None = None,
) -> RawSeries:
    """What is in a table, by the keys of `own_table`; a channel may have no value at all.

    Raises:
        FileNotFoundError, ValueError: as `own_table`.
    """
    table = read_table(path, delimiter)
    layout = _layout(table, time, columns, series, controls, statics, long, listed(label))
    times, calendar = _times(table, layout.time)
    channels = _channels(table, layout, columns)
    rows_of = _rows_of_series(table, layout.series)
    found = tuple(_series(table, layout, channels, name, rows, times) for name, rows in rows_of.items())
    names = (tuple(channels), tuple(controls), tuple(statics))
    raw = RawSeries(found, *names, time_name=time, calendar=calendar)
    return raw if label is None else replace(raw, **vars(read_labels(table, label, rows_of)))


@dataclass(frozen=True)
class _Layout:
    """The places of columns; `values` are those of the channels, or, of a long table, of the variable and its value."""

    time: int
    series: int | None
    controls: list[int]
    statics: list[int]
    values: list[int]
    is_long: bool


def _layout(
    table: Table,
    time: str,
    columns: list[str] | None,
    series: str | None,
    controls: list[str],
    statics: list[str],
    long: list[str] | None,
    labels: list[str],
) -> _Layout:
    if long is not None and len(long) != 2:
        raise ValueError(f"long must be the column of variables and that of values, or null, got {long}")
    taken: dict[str, str] = {}
    named = {"time": [time], "series": [series] if series is not None else [], "controls": controls, "statics": statics}
    named |= {"label": labels}
    named |= {"long": long} if long is not None else {"columns": columns or []}
    for key, names in named.items():
        for name in names:
            table.column(key, name)
            if name in taken:
                raise ValueError(f"dataset.{key}: column {name} is already in dataset.{taken[name]}")
            taken[name] = key
    values = named.get("long") or columns or [name for name in table.names if name not in taken]
    if not values:
        raise ValueError(f"dataset.columns: {table.path} has no column of values beside {', '.join(taken)}")
    place = table.names.index
    return _Layout(
        place(time),
        None if series is None else place(series),
        [place(name) for name in controls],
        [place(name) for name in statics],
        [place(name) for name in values],
        long is not None,
    )


def _times(table: Table, column: int) -> tuple[list[float], str]:
    read, calendar = reader_of_times([row[column] for row in table.rows])
    times = []
    for number, row in enumerate(table.rows):
        try:
            times.append(read(row[column]))
        except ValueError as error:
            raise table.error(number, column, str(error)) from error
    return times, calendar


def _rows_of_series(table: Table, column: int | None) -> dict[str, list[int]]:
    """The rows of each series, in the order in which they come."""
    if column is None:
        return {ONLY: list(range(len(table.rows)))}
    return _rows_by_name(table, column)


def _rows_by_name(table: Table, column: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, row in enumerate(table.rows):
        if row[column] not in found:
            try:
                check_name(row[column])
            except ValueError as error:
                raise table.error(number, column, str(error)) from error
        found.setdefault(row[column], []).append(number)
    return found


def _channels(table: Table, layout: _Layout, columns: list[str] | None) -> list[str]:
    if not layout.is_long:
        return [table.names[place] for place in layout.values]
    column = layout.values[0]
    variables = list(_rows_by_name(table, column))
    for name in columns or ():
        if name not in variables:
            raise ValueError(
                f"dataset.columns: column {table.names[column]} of {table.path} has no {name}: it has "
                f"{', '.join(variables[:20])}"
            )
    return list(columns or variables)


def _series(
    table: Table, layout: _Layout, channels: Sequence[str], name: str, rows: list[int], times: list[float]
) -> Series:
    """One series of some rows of the table."""
    found = _rows_of_channels(table, layout, channels, rows)
    points: dict[float, int] = {}  # the first row of each time
    for _, some in found:
        _check_increasing(table, layout.time, some, times)
        for row in some:
            points.setdefault(times[row], row)
    if len(points) < 2:
        raise ValueError(
            f"dataset.path: {table.path}: series {name or 'of the file'} has {len(points)} time (row "
            f"{table.numbers[rows[0]]}); at least 2 are needed"
        )
    order = {time: number for number, time in enumerate(sorted(points))}
    values = [[math.nan] * len(channels) for _ in order]
    places = [[table.numbers[points[time]]] * len(channels) for time in order]
    for channel, (column, some) in enumerate(found):
        for row in some:
            values[order[times[row]]][channel] = _number(table, row, column)
            places[order[times[row]]][channel] = table.numbers[row]
    return Series(
        name or table.path,
        torch.tensor(list(order), dtype=torch.float64),
        torch.tensor(values, dtype=torch.float64),
        torch.tensor(_controls(table, layout, rows, times, points, order), dtype=torch.float64),
        torch.tensor([_static(table, rows, column) for column in layout.statics], dtype=torch.float64),
        places,
    )


def _rows_of_channels(
    table: Table, layout: _Layout, channels: Sequence[str], rows: list[int]
) -> list[tuple[int, list[int]]]:
    """Of each channel the column of its values, and the rows that have one."""
    if not layout.is_long:
        return [(column, rows) for column in layout.values]
    variable, value = layout.values
    return [(value, [row for row in rows if table.rows[row][variable] == name]) for name in channels]


def _number(table: Table, row: int, column: int) -> float:
    try:
        return number_in(table.rows[row][column])
    except ValueError as error:
        raise table.error(row, column, str(error)) from error


def _check_increasing(table: Table, column: int, rows: Sequence[int], times: Sequence[float]) -> None:
    for before, row in zip(rows, rows[1:], strict=False):
        if times[row] <= times[before]:
            cell, told = shown(table.rows[row][column]), f"row {table.numbers[before]}"
            rule = f"is there already in {told}" if times[row] == times[before] else f"is before that of {told}"
            raise table.error(row, column, f"the time {cell} {rule}; times must increase within a series")


def _controls(
    table: Table,
    layout: _Layout,
    rows: Sequence[int],
    times: Sequence[float],
    points: Mapping[float, int],
    order: Iterable[float],
) -> list[list[float]]:
    """The controls of each time, which are the same in all rows of it."""
    for row in rows:
        for column in layout.controls:
            first = points.get(times[row], row)
            number = _number(table, row, column)
            if math.isnan(number):
                raise table.error(row, column, "it is missing, and a control must be known at all times")
            if number != _number(table, first, column):
                cells = shown(table.rows[row][column]), shown(table.rows[first][column])
                told = f"it is {cells[0]}, and {cells[1]} at the same time in row {table.numbers[first]}"
                raise table.error(row, column, told)
    return [[_number(table, points[time], column) for column in layout.controls] for time in order]


def _static(table: Table, rows: Sequence[int], column: int) -> float:
    """The one value of a column in a series; a row may leave it out."""
    first, found = -1, math.nan
    for row in rows:
        number = _number(table, row, column)
        if math.isnan(number) or number == found:
            continue
        if first >= 0:
            told = (
                f"it is {number:g}, and {found:g} in row {table.numbers[first]}; a static must not change in a series"
            )
            raise table.error(row, column, told)
        first, found = row, number
    if first < 0:
        raise table.error(rows[0], column, "it is missing in the whole series")
    return found
