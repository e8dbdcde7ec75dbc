"""The rows of a delimited text file that a stranger may have written, each with the number of its line."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from node_cli.datasets.series.cells import check_name

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
LONGEST_LINE = 1 << 20  # bytes
MAX_SHOWN = 40  # characters of a cell, and columns, in a message


@dataclass(frozen=True)
class Table:
    """A header, and rows of as many cells.

    Attributes:
        path: where it came from.
        names: the columns.
        rows: the cells of each row, without spaces around them.
        numbers: the line in the file of each row; that of the header is usually 1.
    """

    path: str
    names: tuple[str, ...]
    rows: list[list[str]]
    numbers: list[int]

    def column(self, key: str, name: str) -> int:
        """The place of a column.

        Raises:
            ValueError: there is none of this name.
        """
        if name in self.names:
            return self.names.index(name)
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"dataset.{key}: {self.path} has no column {name}: {hint}its columns are {self.shown_names}")

    @property
    def shown_names(self) -> str:
        """The first columns, in words."""
        return ", ".join(self.names[:MAX_SHOWN]) + (", ..." if len(self.names) > MAX_SHOWN else "")

    def error(self, row: int, column: int, told: str) -> ValueError:
        """What is wrong with a cell, by its row in `rows`."""
        return ValueError(f"dataset.path: {self.path}, row {self.numbers[row]}, column {self.names[column]}: {told}")


def read_table(path: str, delimiter: str | None) -> Table:
    """Reads a file in UTF-8 with a header; blank lines are skipped.

    Args:
        path: the file.
        delimiter: one of `DELIMITERS` by name; None: the only one of them that the header has.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such table.
    """
    if delimiter is not None and delimiter not in DELIMITERS:
        raise ValueError(f"delimiter must be one of {', '.join(DELIMITERS)}, or null, got {delimiter!r}")
    file = Path(path)
    try:
        if file.is_dir():
            raise ValueError(f"dataset.path: {path} is a folder; give the file itself")
        if not file.is_file():
            raise FileNotFoundError(f"dataset.path: there is no file {path}")
        with file.open("rb") as stream:
            return _parsed(path, stream, delimiter)
    except OSError as error:
        if error.errno is None:
            raise
        raise ValueError(f"dataset.path: {path} cannot be read ({error.strerror})") from error


def _parsed(path: str, stream: IO[bytes], delimiter: str | None) -> Table:
    lines = _Lines(path, stream)
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise ValueError(f"dataset.path: {path} is empty; it must have a header and rows")
    chosen = _delimiter(path, first, delimiter)

    def all_lines() -> Iterator[str]:
        yield first
        yield from lines

    reader = csv.reader(all_lines(), delimiter=chosen, strict=True)
    skipped = lines.number - 1  # blank lines before the header
    rows, numbers, number = [], [], 0
    try:
        names = _header(path, next(reader))
        for cells in reader:
            number = reader.line_num + skipped
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                _check_row(path, number, stripped, names)
                rows.append(stripped)
                numbers.append(number)
    except csv.Error as error:
        raise ValueError(f"dataset.path: {path}, row {reader.line_num + skipped}: {error}") from error
    if not rows:
        raise ValueError(f"dataset.path: {path} has a header and no rows")
    return Table(path, names, rows, numbers)


class _Lines(Iterator[str]):
    """The lines of a file as text, each with its end; `number` is that of the last one."""

    def __init__(self, path: str, stream: IO[bytes]) -> None:
        self._path, self._stream, self.number = path, stream, 0

    def __next__(self) -> str:
        line = self._stream.readline(LONGEST_LINE + 1)
        if not line:
            raise StopIteration
        self.number += 1
        where = f"dataset.path: {self._path}, row {self.number}"
        if len(line) > LONGEST_LINE:
            raise ValueError(f"{where} is longer than {LONGEST_LINE:,} bytes; is it a table?")
        try:
            return line.decode("utf-8-sig" if self.number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not UTF-8 at byte {error.start + 1}; save the table as UTF-8") from error


def _delimiter(path: str, header: str, wanted: str | None) -> str:
    found = [name for name, character in DELIMITERS.items() if character in header]
    if wanted is not None:
        if found and wanted not in found:
            raise ValueError(
                f"dataset.delimiter={wanted}: the header of {path} has no {wanted}, it has {' and '.join(found)}: set "
                "that, or null"
            )
        return DELIMITERS[wanted]
    if len(found) != 1:
        told = f"has {' and '.join(found)}" if found else f"has none of {', '.join(DELIMITERS)}"
        raise ValueError(
            f"dataset.path: the header of {path} {told}: set dataset.delimiter to the one that is between columns"
        )
    return DELIMITERS[found[0]]


def _header(path: str, cells: Sequence[str]) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in cells)
    for number, name in enumerate(names, start=1):
        try:
            check_name(name)
        except ValueError as error:
            hint = "" if name else " in the header (pandas: to_csv(index=False))"
            raise ValueError(f"dataset.path: {path}, column {number}: {error}{hint}") from error
        if name in names[: number - 1]:
            raise ValueError(f"dataset.path: {path} has two columns {name}: {names.index(name) + 1} and {number}")
    return names


def _check_row(path: str, number: int, cells: Sequence[str], names: Sequence[str]) -> None:
    if len(cells) != len(names):
        raise ValueError(
            f"dataset.path: {path}, row {number} has {len(cells)} cells, the header has {len(names)}: a cell that "
            "holds the delimiter must be in quotes"
        )
    if tuple(cells) == names:
        raise ValueError(f"dataset.path: {path}, row {number} is the header again; take it out")
