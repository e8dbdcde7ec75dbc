"""The arrays of an .npz file that a stranger may have written: nothing is unpickled, and no more read than declared."""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from node_cli.datasets.bounded import can_hold

ENCRYPTED = 1  # a bit of a member's flags
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
OF_HEADERS = (*DAMAGE, SyntaxError, TypeError, RecursionError, OverflowError, tokenize.TokenError)


def array_names(path: Path) -> list[str]:
    """What the arrays of the file are called.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what `numpy.savez` writes.
    """
    with _archive(path) as archive:
        return [member.filename.removesuffix(".npy") for member in archive.infolist()]


def read_arrays(path: Path, names: Collection[str], ignored: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Read every array of the file; each must have one of `names`, or is one of the `ignored`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what `numpy.savez` writes, or holds other arrays.
    """
    with _archive(path) as archive:
        members = _members(path, archive, names, ignored)
        return {name: _read(path, archive, name, member) for name, member in members.items()}


class StoredArrays:
    """The arrays of an open .npz file, of which no more is held than what is asked for; dimension 0 is the sample.

    Attributes:
        shapes: the shape of a sample of each array.
        dtypes: the dtype of each array.
        num_samples: how many there are, of each array as many.
    """

    def __init__(self, path: Path, streams: Mapping[str, IO[bytes]], sizes: Mapping[str, int]) -> None:
        self._path, self._streams = path, streams
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        counts: dict[str, int] = {}
        for name, stream in streams.items():
            with _named(path, name):
                shape, is_fortran, dtype = _header(stream, sizes[name])
                if not shape:
                    raise ValueError("it must have a dimension of samples, and is a single value")
                if is_fortran and len(shape) > 1:
                    raise ValueError("it is in Fortran order; save numpy.ascontiguousarray of it")
            counts[name], self.shapes[name], self.dtypes[name] = shape[0], shape[1:], dtype
        if not counts or len(set(counts.values())) > 1 or not max(counts.values()):
            told = ", ".join(f"{name} has {count}" for name, count in counts.items()) or "it holds nothing"
            raise ValueError(f"dataset.path: {path} must hold samples, of each array as many; {told}")
        self.num_samples = max(counts.values())

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """The samples in order, `size` at a time; they can be gone through once.

        Raises:
            ValueError: the file is damaged.
        """
        for start in range(0, self.num_samples, size):
            count = min(size, self.num_samples - start)
            yield {name: self._next(name, count, is_last=start + count == self.num_samples) for name in self._streams}

    def _next(self, name: str, count: int, *, is_last: bool) -> np.ndarray:
        shape, dtype, stream = (count, *self.shapes[name]), self.dtypes[name], self._streams[name]
        with _named(self._path, name):
            content = bytearray(stream.read(math.prod(shape) * dtype.itemsize))
            if is_last:
                content += stream.read(1)  # nothing, and the checksum is compared
            return np.frombuffer(content, dtype).reshape(shape)


@contextmanager
def opened_arrays(path: Path, names: Collection[str], ignored: Collection[str] = ()) -> Iterator[StoredArrays]:
    """The arrays of a file that may be larger than the memory; each must have one of `names`, or is `ignored`.

    Raises:
        FileNotFoundError, ValueError: as `read_arrays`; or it holds no samples, or not of each array as many.
    """
    with _archive(path) as archive, ExitStack() as stack:
        members, streams = _members(path, archive, names, ignored), {}
        for name, member in members.items():
            with _named(path, name):
                _check_packing(member)
                streams[name] = stack.enter_context(archive.open(member))
        yield StoredArrays(path, streams, {name: member.file_size for name, member in members.items()})


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        is_file = path.is_file()
    except OSError as error:
        raise FileNotFoundError(
            f"dataset.path: cannot look for the file ({error.strerror}); give an .npz file"
        ) from error
    if not is_file:
        raise FileNotFoundError(f"dataset.path: there is no file {path}; give an .npz file written by numpy.savez")
    try:
        return zipfile.ZipFile(path)
    except DAMAGE as error:
        raise ValueError(f"dataset.path: {path} is not a whole .npz file; write it with numpy.savez") from error


@contextmanager
def _named(path: Path, name: str) -> Iterator[None]:
    """Says of what goes wrong with an array which one it is, and that of a file."""
    try:
        yield
    except MemoryError as error:
        raise ValueError(f"dataset.path: {path} holds {name}, which needs more memory than there is") from error
    except OF_HEADERS as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"dataset.path: {path} holds {name}, which cannot be read: {why}") from error


def _members(
    path: Path, archive: zipfile.ZipFile, names: Collection[str], ignored: Collection[str]
) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in members:
            raise ValueError(f"dataset.path: {path} holds {name} twice; write it with numpy.savez")
        members[name] = member
    unknown = sorted(set(members) - {*names, *ignored})
    if unknown:
        shown = ", ".join(name[:40] for name in unknown[:5])
        raise ValueError(f"dataset.path: {path} holds {' '.join(shown.split())}; allowed are {', '.join(names)}")
    return {name: member for name, member in members.items() if name not in ignored}


def _read(path: Path, archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> np.ndarray:
    with _named(path, name):
        _check_packing(member)
        with archive.open(member) as stream:
            return _array(stream, member.file_size)


def _check_packing(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & ENCRYPTED:
        raise ValueError("it is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is packed in a way that numpy.savez never does")
    if not can_hold(member.compress_size, member.file_size):
        raise ValueError(f"it promises {member.file_size} bytes, more than its {member.compress_size} can unpack to")


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array of a member of `size` bytes, all of them its own."""
    shape, is_fortran, dtype = _header(stream, size)
    expected = math.prod(shape) * dtype.itemsize
    content = bytearray(expected)
    read = 0
    while part := stream.read(1 << 20):
        content[read : read + len(part)] = part
        read += len(part)
    if read != expected:
        raise EOFError(f"it has {read} bytes of values, {expected} expected")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


def _header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype of a member of `size` bytes, whose values come next."""
    try:
        read_header = HEADERS[npy.read_magic(stream)]
    except (KeyError, ValueError) as error:
        raise ValueError("it is no .npy array") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that Python 2 wrote it
        shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded, they would be unpickled")
    length, expected = size - stream.tell(), math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or length != expected:
        raise ValueError(f"it has {length} bytes of values, {expected} expected for shape {shape} of {dtype}")
    return shape, is_fortran, dtype
