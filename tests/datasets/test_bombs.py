"""Small files that unpack to gigabytes are refused in little memory and time."""

from __future__ import annotations

import resource
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from node_cli.datasets.cifar10 import read_archive
from node_cli.datasets.idx import read_idx
from node_cli.datasets.npz_file import read_arrays

pytestmark = pytest.mark.slow

GIGABYTES = 2
BLOCK = 1 << 24


def compressor():
    return zlib.compressobj(9, zlib.DEFLATED, -15)


def deflated(content: bytes) -> bytes:
    """Whole blocks, after which others may follow, the same again perhaps: gigabytes are never made here."""
    packer = compressor()
    return packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)


def gzipped(path: Path, start: bytes) -> None:
    path.write_bytes(b"\x1f\x8b\x08" + bytes(7) + deflated(start) + deflated(bytes(BLOCK)) * (64 * GIGABYTES))


class Zeros:
    """Compresses as `zlib` does what is known to be blocks of zeros."""

    packed = deflated(bytes(BLOCK))

    def compress(self, data: bytes) -> bytes:
        assert len(data) == BLOCK
        return self.packed

    def flush(self) -> bytes:
        return compressor().flush()


def zipped(path: Path, megabytes: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("inputs.npy", "w") as member:
        member._compressor = Zeros()
        for _ in range((megabytes << 20) // BLOCK):
            member.write(bytes(BLOCK))


def tar_of(kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo("long")
    member.type, member.size = kind, size
    return member.tobuf()


def main() -> None:
    """In a process of its own, which may take 600 MB more than it has."""
    folder = Path.cwd()
    gzipped(folder / "labels", b"\0\0\x08\1" + struct.pack(">I", 5))
    gzipped(folder / "named", tar_of(tarfile.GNUTYPE_LONGNAME, GIGABYTES << 30))
    gzipped(folder / "other", tar_of(tarfile.REGTYPE, GIGABYTES << 30))
    zipped(folder / "arrays", 704)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (600 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for read in (
        lambda: read_idx(folder / "labels", 1),
        lambda: read_archive(folder / "named"),
        lambda: read_archive(folder / "other"),
        lambda: read_arrays(folder / "arrays", ["inputs"]),
    ):
        try:
            read()
        except ValueError as error:
            print(error)


def test_the_archive_is_a_sound_one(tmp_path):
    zipped(tmp_path / "arrays", 16)
    with zipfile.ZipFile(tmp_path / "arrays") as archive:
        assert archive.testzip() is None
        assert archive.read("inputs.npy") == bytes(BLOCK)


def test_bombs_are_refused(begin, tmp_path):
    process = begin(tmp_path, "test_bombs")
    out, err = process.communicate()
    assert err == ""
    assert [line.replace(f"{tmp_path}/", "") for line in out.splitlines()] == [
        "labels: has more than 13 bytes, 13 expected for sizes (5,)",
        "named: not a whole tar.gz archive (it unpacks to more than 185428576 bytes)",
        "other: not a whole tar.gz archive (it unpacks to more than 185428576 bytes)",
        "dataset.path: arrays holds inputs, which cannot be read: it is no .npy array",
    ]
