"""Image sets in the IDX format of MNIST: four gzipped files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from node_cli.batch import Batch
from node_cli.datasets.bounded import can_hold
from node_cli.datasets.download import RemoteFile, fetch_all


class IdxFiles(NamedTuple):
    """The four files of one image set."""

    train_images: RemoteFile
    train_labels: RemoteFile
    test_images: RemoteFile
    test_labels: RemoteFile


def read_idx(path: Path, num_dims: int) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes into a uint8 array of `num_dims` dimensions.

    Source: LeCun, Cortes, Burges, The MNIST database (the bytes 0, 0, 8, num_dims; big-endian sizes; the values).

    Raises:
        ValueError: the file is not what it should be.
    """
    try:
        with gzip.open(path) as stream:
            content, sizes = _read_header(path, stream, num_dims)
            expected = len(content) + math.prod(sizes)
            if not can_hold(path.stat().st_size, expected):
                raise ValueError(f"{path}: promises {expected} bytes for sizes {sizes}, more than it can unpack to")
            content += stream.read(math.prod(sizes) + 1)  # what is unpacked is no more than the header says
    except (EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error})") from error
    if len(content) != expected:
        found = len(content) if len(content) < expected else f"more than {expected}"
        raise ValueError(f"{path}: has {found} bytes, {expected} expected for sizes {sizes}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * num_dims).reshape(sizes).copy()


def _read_header(path: Path, stream: gzip.GzipFile, num_dims: int) -> tuple[bytes, tuple[int, ...]]:
    content = stream.read(4 + 4 * num_dims)
    magic, header = content[:4], 4 + 4 * num_dims
    if magic != bytes((0, 0, 8, num_dims)):
        raise ValueError(f"{path}: starts with the bytes {list(magic)}, an IDX file with [0, 0, 8, {num_dims}]")
    if len(content) < header:
        raise ValueError(f"{path}: has {len(content)} bytes, its header alone takes {header}")
    return content, struct.unpack(f">{num_dims}I", content[4:])


def load_idx(files: IdxFiles, num_classes: int, folder: Path, mirrors: Sequence[str]) -> tuple[Batch, Batch]:
    """Fetch and read the training and the test split, images `(1, height, width)` as uint8.

    Raises:
        ValueError: a file is damaged.
        FileNotFoundError: a file is neither in `folder` nor to be had.
    """
    train_images, train_labels, test_images, test_labels = fetch_all(files, folder, mirrors)
    return _read_split(train_images, train_labels, num_classes), _read_split(test_images, test_labels, num_classes)


def _read_split(images_path: Path, labels_path: Path, num_classes: int) -> Batch:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise ValueError(f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels")
    if len(labels) == 0 or labels.max() >= num_classes:
        raise ValueError(
            f"{labels_path}: holds the labels {np.unique(labels).tolist()}, allowed: 0 to {num_classes - 1}"
        )
    return {"inputs": torch.from_numpy(images).unsqueeze(1), "targets": torch.from_numpy(labels).long()}
