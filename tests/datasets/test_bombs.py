"""Small files that unpack to gigabytes are refused in little memory and time."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

READ_BOMBS = """
import gzip, io, resource, struct, sys, tarfile, zipfile, zlib
from pathlib import Path
from node_cli.datasets.cifar10 import MAX_MEMBER, TRAIN_MEMBERS, read_archive
from node_cli.datasets.idx import read_idx
from node_cli.datasets.npz_file import read_arrays

GIGABYTES = 2
folder = Path(sys.argv[1])

def gzipped(path, start):
    # One deflated block of zeros, many times over: gigabytes are never made here.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(b"\\x1f\\x8b\\x08" + bytes(7) + first + block * (64 * GIGABYTES))

def tar_of(type_, size):
    member = tarfile.TarInfo("long")
    member.type, member.size = type_, size
    return member.tobuf()

gzipped(folder / "labels", b"\\0\\0\\10\\1" + struct.pack(">I", 5))
gzipped(folder / "named", tar_of(tarfile.GNUTYPE_LONGNAME, GIGABYTES << 30))
gzipped(folder / "other", tar_of(tarfile.REGTYPE, GIGABYTES << 30))
with zipfile.ZipFile(folder / "arrays", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
    with archive.open("inputs.npy", "w") as member:
        for _ in range(11):
            member.write(bytes(1 << 26))

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
"""


def test_bombs_are_refused(tmp_path):
    command = [sys.executable, "-c", READ_BOMBS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert [line.replace(f"{tmp_path}/", "") for line in done.stdout.splitlines()] == [
        "labels: has more than 13 bytes, 13 expected for sizes (5,)",
        "named: not a whole tar.gz archive (it unpacks to more than 185428576 bytes)",
        "other: not a whole tar.gz archive (it unpacks to more than 185428576 bytes)",
        "dataset.path: arrays holds inputs, which cannot be read: it is no .npy array",
    ]
