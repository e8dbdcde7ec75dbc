"""Points with a name for each coordinate: the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.datasets.assembling import offers_of
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.digest import exact_digest
from node_cli.datasets.labels import RawLabels, listed
from node_cli.datasets.scaling import Preprocessing
from node_cli.datasets.series.cells import number_in
from node_cli.datasets.series.csv_rows import Table, read_table
from node_cli.datasets.series.scaling import fit_columns
from node_cli.datasets.series.table_labels import read_labels

LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class RawRows:
    """Independent rows, as they were read.

    Attributes:
        path: the table.
        names: of the columns that were read.
        values: `(n, d)` in float64.
        shown_names: all columns of the table, for messages.
        labels: what is to be told of each row; None: nothing.
    """

    path: str
    names: tuple[str, ...]
    values: Tensor
    shown_names: str
    labels: RawLabels | None = None


def rows_dataset(splits: Mapping[str, Batch], names: Sequence[str], *, normalize: bool) -> Dataset:
    """Points, `inputs` `(n, d)` of each split, in float64; train alone sets the scaling.

    Raises:
        ValueError: a column has one value in all training rows.
    """
    scaling = fit_columns(splits["train"]["inputs"], names, "column") if normalize else None
    preprocessing = Preprocessing(None, scaling)
    batches = {name: {**split, "inputs": preprocessing("inputs", split["inputs"])} for name, split in splits.items()}
    offers = {**offers_of(batches["train"], None, scaling), "column_names": tuple(names)}
    return Dataset(batches, offers, digest=exact_digest(splits), preprocessing={"inputs": preprocessing})


def read_rows(
    path: str, columns: Sequence[str] | None, delimiter: str | None, label: str | Sequence[str] | None = None
) -> RawRows:
    """Reads columns of numbers from a delimited text file with a header; None: all of them but labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such table, has no such column, or a cell is missing or no number.
    """
    table = read_table(path, delimiter)
    labels = listed(label)
    names = tuple([name for name in table.names if name not in labels] if columns is None else columns)
    places = [table.column("columns", name) for name in names]
    for key, some in (("columns", names), ("label", labels)):
        for number, name in enumerate(some):
            table.column(key, name)
            if name in some[:number]:
                raise ValueError(f"dataset.{key}: {name} is there twice")
            if key == "label" and name in names:
                raise ValueError(f"dataset.label: column {name} is already in dataset.columns")
    if not names:
        raise ValueError(f"dataset.columns: {path} has no column beside those of dataset.label")
    values = [[_number(table, row, place) for place in places] for row in range(len(table.rows))]
    told = None if label is None else read_labels(table, label, {str(row): [row] for row in range(len(table.rows))})
    return RawRows(path, names, torch.tensor(values, dtype=torch.float64), table.shown_names, told)


def _number(table: Table, row: int, column: int) -> float:
    try:
        number = number_in(table.rows[row][column])
    except ValueError as error:
        told = f"{error}; name the columns of numbers in dataset.columns, or, of series, set dataset.time"
        raise table.error(row, column, told) from error
    if math.isnan(number):
        raise table.error(
            row, column, "it is missing; leave the row or the column out, or, of series, set dataset.time"
        )
    if abs(number) > LARGEST:
        raise table.error(row, column, f"{number:g} is too large for float32")
    return number
