"""What a table says is to be told of each series, or of each row: classes, or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from node_cli.datasets.labels import RawLabels, listed
from node_cli.datasets.series.cells import MISSING, NUMBER, check_name, number_in, shown
from node_cli.datasets.series.csv_rows import Table


def read_labels(table: Table, label: str | Sequence[str], series: Mapping[str, list[int]]) -> RawLabels:
    """The labels in a column, or the numbers in several, each the same in all rows of a series that have it.

    Words and whole numbers of one column are classes. Other numbers, and all those of a list of columns, are values.

    Args:
        table: has the columns.
        label: one column, or a list of them.
        series: the rows of each; of independent rows, one each.

    Raises:
        ValueError: a label is missing, changes within a series, or is neither.
    """
    columns = [table.names.index(name) for name in listed(label)]
    places = [[_place(table, rows, column) for rows in series.values()] for column in columns]
    if isinstance(label, str) and _are_classes(table, places[0], columns[0]):
        return _classes(table, places[0], columns[0])
    numbers = [[_number(table, row, column) for row in rows] for column, rows in zip(columns, places, strict=True)]
    names = tuple(table.names[column] for column in columns)
    return RawLabels(torch.tensor(numbers, dtype=torch.float64).T.contiguous(), target_names=names)


def _place(table: Table, rows: Sequence[int], column: int) -> int:
    """The first row of a series that has a label, which all other rows of it that have one repeat."""
    there = [row for row in rows if table.rows[row][column].casefold() not in MISSING]
    if not there:
        raise table.error(rows[0], column, f"the label is missing{' in the whole series' if len(rows) > 1 else ''}")
    first = table.rows[there[0]][column]
    for row in there:
        if table.rows[row][column] != first:
            told = f"it is {shown(table.rows[row][column])}, and {shown(first)} in row {table.numbers[there[0]]}"
            raise table.error(row, column, f"{told}; a label must not change in a series")
    return there[0]


def _are_classes(table: Table, rows: Sequence[int], column: int) -> bool:
    is_word = {row: not NUMBER.fullmatch(table.rows[row][column]) for row in rows}
    words = [row for row in rows if is_word[row]]
    fractions = [row for row in rows if not is_word[row] and not _number(table, row, column).is_integer()]
    if words and fractions:
        fraction, word = (shown(table.rows[found[0]][column]) for found in (fractions, words))
        told = f"{fraction} is no whole number, and {word} in row {table.numbers[words[0]]} is a word"
        raise table.error(fractions[0], column, f"{told}; labels are words or whole numbers, or all numbers")
    return not fractions


def _classes(table: Table, rows: Sequence[int], column: int) -> RawLabels:
    names = []
    for row in rows:
        cell = table.rows[row][column]
        try:
            check_name(cell)
        except ValueError as error:
            raise table.error(row, column, str(error)) from error
        names.append(str(int(number_in(cell))) if NUMBER.fullmatch(cell) else cell)
    are_numbers = all(NUMBER.fullmatch(name) for name in names)
    classes = sorted(set(names), key=int if are_numbers else None)
    if len(classes) < 2:
        raise ValueError(
            f"dataset.label: column {table.names[column]} of {table.path} has one class, {classes[0]}; at least 2 are "
            "needed"
        )
    return RawLabels(torch.tensor([classes.index(name) for name in names]), class_names=tuple(classes))


def _number(table: Table, row: int, column: int) -> float:
    try:
        return number_in(table.rows[row][column])
    except ValueError as error:
        raise table.error(row, column, str(error)) from error
