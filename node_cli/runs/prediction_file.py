"""Predictions as a file, CSV or npz by its ending: written as they come, whole or not at all."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from node_cli.files import replacing

Rows = Mapping[str, np.ndarray]


def write_predictions(path: Path, batches: Iterable[Rows], column_names: Mapping[str, Sequence[str]]) -> int:
    """Writes arrays by name, one row a sample, of which no more than one batch is held; returns how many samples.

    In CSV an array `(samples, k)` becomes k columns, `name_<column name>`; in npz it stays one, and `name_columns`
    has the names. Columns that `column_names` leaves out are numbered.

    Raises:
        OSError: it could not be written; what was at `path` is still there.
    """
    with replacing(path) as temporary:
        return WRITERS[path.suffix](temporary, batches, column_names)


def _write_csv(path: Path, batches: Iterable[Rows], column_names: Mapping[str, Sequence[str]]) -> int:
    count = 0
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for rows in batches:
            columns: dict[str, np.ndarray] = {}
            for name, array in rows.items():
                columns |= _columns(name, array, column_names.get(name))
            if not count:
                writer.writerow(columns)
            texts = [_texts(column) for column in columns.values()]
            writer.writerows(zip(*texts, strict=True))
            count += len(texts[0])
        file.flush()
        os.fsync(file.fileno())
    return count


def _columns(name: str, array: np.ndarray, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    if array.ndim == 1:
        return {name: array}
    if names is None or array.ndim > 2:
        names = ["_".join(map(str, place)) for place in product(*map(range, array.shape[1:]))]
    flat = array.reshape(len(array), -1)
    return {f"{name}_{each}": column for each, column in zip(names, flat.T, strict=True)}


def _texts(column: np.ndarray) -> list[str]:
    """As few digits as tell a number of this dtype from its neighbours."""
    texts = column.astype(str)
    return list(np.char.lower(texts) if column.dtype == bool else texts)


def _write_npz(path: Path, batches: Iterable[Rows], column_names: Mapping[str, Sequence[str]]) -> int:
    """The arrays grow in nameless files, for an archive takes one after the other."""
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        first: Rows = {}
        count = 0
        for rows in batches:
            if not count:
                first = rows
                files = {name: stack.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in rows}
            for name, array in rows.items():
                assert (array.dtype, array.shape[1:]) == (first[name].dtype, first[name].shape[1:])
                files[name].write(array.tobytes())
            count += len(next(iter(rows.values())))
        file = stack.enter_context(path.open("xb"))
        with zipfile.ZipFile(file, "w") as archive:
            for name, values in files.items():
                values.seek(0)
                descr, shape = npy.dtype_to_descr(first[name].dtype), (count, *first[name].shape[1:])
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    header = {"descr": descr, "fortran_order": False, "shape": shape}
                    npy.write_array_header_1_0(member, header)
                    shutil.copyfileobj(values, member, 1 << 20)
            for name, names in column_names.items():
                if name in first and first[name].ndim > 1:
                    with archive.open(f"{name}_columns.npy", "w") as member:
                        npy.write_array(member, np.array(names), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return count


WRITERS: dict[str, Callable[[Path, Iterable[Rows], Mapping[str, Sequence[str]]], int]] = {
    ".csv": _write_csv,
    ".npz": _write_npz,
}
