"""The arrays of an .npz file that a stranger may have written: nothing is unpickled, and no more read than declared."""

from __future__ import annotations

import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from node_cli.datasets.bounded import can_hold

ENCRYPTED = 1  # a bit of a member's flags
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def read_arrays(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read every array of the file; each must have one of `names`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what `numpy.savez` writes, or holds other arrays.
    """
    try:
        is_file = path.is_file()
    except OSError as error:
        raise FileNotFoundError(
            f"dataset.path: cannot look for the file ({error.strerror}); give an .npz file"
        ) from error
    if not is_file:
        raise FileNotFoundError(f"dataset.path: there is no file {path}; give an .npz file written by numpy.savez")
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise ValueError(f"dataset.path: {path} is not a whole .npz file; write it with numpy.savez") from error
    with archive:
        members = _members(path, archive, names)
        return {name: _read(path, archive, name, member) for name, member in members.items()}


def _members(path: Path, archive: zipfile.ZipFile, names: Collection[str]) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in members:
            raise ValueError(f"dataset.path: {path} holds {name} twice; write it with numpy.savez")
        members[name] = member
    unknown = sorted(set(members) - set(names))
    if unknown:
        shown = ", ".join(name[:40] for name in unknown[:5])
        raise ValueError(f"dataset.path: {path} holds {' '.join(shown.split())}; allowed are {', '.join(names)}")
    return members


def _read(path: Path, archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> np.ndarray:
    try:
        _check_packing(member)
        with archive.open(member) as stream:
            return _array(stream, member.file_size)
    except MemoryError as error:
        raise ValueError(f"dataset.path: {path} holds {name}, which needs more memory than there is") from error
    except (*DAMAGE, SyntaxError, TypeError, RecursionError, OverflowError, tokenize.TokenError) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"dataset.path: {path} holds {name}, which cannot be read: {why}") from error


def _check_packing(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & ENCRYPTED:
        raise ValueError("it is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is packed in a way that numpy.savez never does")
    if not can_hold(member.compress_size, member.file_size):
        raise ValueError(f"it promises {member.file_size} bytes, more than its {member.compress_size} can unpack to")


def _array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array of a member of `size` bytes, all of them its own."""
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
    content = bytearray(expected)
    read = 0
    while part := stream.read(1 << 20):
        content[read : read + len(part)] = part
        read += len(part)
    if read != expected:
        raise EOFError(f"it has {read} bytes of values, {expected} expected")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")
