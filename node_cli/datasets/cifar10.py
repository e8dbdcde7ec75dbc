"""CIFAR-10, from its binary archive: nothing is unpickled, nothing is unpacked to disk."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np
import torch

from node_cli.batch import Batch, concatenate
from node_cli.datasets.assembling import assemble_official
from node_cli.datasets.bounded import Bounded
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.download import RemoteFile, fetch

ARCHIVE = RemoteFile(
    "cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 170_052_171
)
TRAIN_MEMBERS = tuple(f"cifar-10-batches-bin/data_batch_{k}.bin" for k in range(1, 6))
TEST_MEMBER = "cifar-10-batches-bin/test_batch.bin"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32  # the label, then the red, green and blue planes
MEMBERS = (*TRAIN_MEMBERS, TEST_MEMBER)
MAX_MEMBER = 10_000 * RECORD_BYTES  # the size of each in the official archive
MAX_BYTES = len(MEMBERS) * MAX_MEMBER + (1 << 20)


def cifar10(
    data_dir: str,
    mirrors: Sequence[str],
    split_seed: int,
    val_fraction: float,
    crop_padding: int,
    flip: bool,
    normalize: bool,
) -> Dataset:
    """50,000 training and 10,000 test images `(3, 32, 32)` of ten kinds of things.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

    Raises:
        ValueError: the archive is damaged or a key out of range.
        FileNotFoundError: the archive is neither in `data_dir`/cifar10 nor to be had.
    """
    train, test = read_archive(fetch(ARCHIVE, Path(data_dir) / "cifar10", mirrors))
    return assemble_official(train, test, CLASS_NAMES, split_seed, val_fraction, crop_padding, flip, normalize)


def read_archive(path: Path) -> tuple[Batch, Batch]:
    """Read the training and the test images, as uint8, out of the archive.

    Raises:
        ValueError: the archive is not what it should be.
    """
    contents: dict[str, bytes] = {}
    try:
        with gzip.open(path) as file, tarfile.open(fileobj=Bounded(file, MAX_BYTES), mode="r|") as archive:
            for member in archive:
                if member.name in MEMBERS:
                    contents[member.name] = _content(path, archive, member, contents)
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError, RecursionError) as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: not a whole tar.gz archive ({' '.join(str(error).split())})") from error
    missing = [name for name in MEMBERS if name not in contents]
    if missing:
        raise ValueError(f"{path}: does not hold {', '.join(missing)}")
    train = [_parse(path, name, contents[name]) for name in TRAIN_MEMBERS]
    return concatenate(train), _parse(path, TEST_MEMBER, contents[TEST_MEMBER])


def _content(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, known: Container[str]) -> bytes:
    """What a member holds, read only if it is a file of a size that it can have."""
    if not member.isreg():
        raise ValueError(f"{path}: {member.name} is no file, but a link, a folder or a device")
    if member.name in known:
        raise ValueError(f"{path}: holds {member.name} twice")
    if not member.size or member.size % RECORD_BYTES or member.size > MAX_MEMBER:
        raise ValueError(
            f"{path}: {member.name} has {member.size} bytes, must be a multiple of {RECORD_BYTES}, at most {MAX_MEMBER}"
        )
    stream = archive.extractfile(member)
    assert stream is not None  # of a regular file there is one
    content = stream.read()
    if len(content) != member.size:
        raise ValueError(f"{path}: {member.name} has {len(content)} bytes, {member.size} are declared")
    return content


def _parse(path: Path, name: str, content: bytes) -> Batch:
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    labels = records[:, 0]
    if labels.max() >= len(CLASS_NAMES):
        raise ValueError(f"{path}: {name} holds the label {labels.max()}, allowed: 0 to {len(CLASS_NAMES) - 1}")
    images = records[:, 1:].reshape(-1, *IMAGE_SHAPE).copy()
    return {"inputs": torch.from_numpy(images), "targets": torch.from_numpy(labels.astype(np.int64))}
