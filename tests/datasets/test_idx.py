import gzip
import hashlib
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from node_cli.datasets import fashion_mnist, mnist
from node_cli.datasets.download import RemoteFile
from node_cli.datasets.idx import IdxFiles, load_idx, read_idx

NUM_TRAIN, NUM_TEST = 60, 20


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def arrays() -> IdxFiles:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_TRAIN + NUM_TEST, 28, 28), np.uint8)
    labels = (np.arange(NUM_TRAIN + NUM_TEST) % 10).astype(np.uint8)
    return IdxFiles(images[:NUM_TRAIN], labels[:NUM_TRAIN], images[NUM_TRAIN:], labels[NUM_TRAIN:])


def write(folder: Path, contents: list[bytes]) -> IdxFiles:
    """Write four files and return their table of names and hashes."""
    names = ("a.gz", "b.gz", "c.gz", "d.gz")
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    files = IdxFiles(*map(RemoteFile, names, hashes, map(len, contents)))
    folder.mkdir(exist_ok=True)
    for file, content in zip(files, contents, strict=True):
        (folder / file.name).write_bytes(content)
    return files


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def test_arrays_survive_the_format(tmp_path):
    path = tmp_path / "images.gz"
    images = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
    path.write_bytes(gzipped(idx_bytes(images)))
    assert read_idx(path, 3).tolist() == images.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain", "not a whole gzip file"),
        (gzipped(b"\0\0\10\1\0\0\0\2ab")[:-9], "not a whole gzip file"),
        (gzipped(b"\0\0\10\3\0\0\0\2ab"), "starts with the bytes [0, 0, 8, 3], an IDX file with [0, 0, 8, 1]"),
        (gzipped(b"\0\0\15\1\0\0\0\2ab"), "starts with the bytes [0, 0, 13, 1]"),
        (gzipped(b""), "starts with the bytes []"),
        (gzipped(b"\0\0\10\1\0\0"), "has 6 bytes, its header alone takes 8"),
        (gzipped(b"\0\0\10\1\0\0\0\5ab"), "has 10 bytes, 13 expected for sizes (5,)"),
        (gzipped(b"\0\0\10\1\0\0\0\1ab"), "has more than 9 bytes, 9 expected for sizes (1,)"),
    ],
)
def test_damaged_files_are_named(content, message, tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        read_idx(path, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.full(60, 10, np.uint8)}, "b.gz: holds the labels [10], allowed: 0 to 9"),
        ({"test_labels": np.zeros(3, np.uint8)}, "c.gz holds 20 images, "),
        (
            {"test_labels": np.zeros(0, np.uint8), "test_images": np.zeros((0, 28, 28), np.uint8)},
            "d.gz: holds the labels [], allowed: 0 to 9",
        ),
    ],
)
def test_labels_that_do_not_fit_are_named(change, message, tmp_path):
    files = write(tmp_path, [gzipped(idx_bytes(array)) for array in arrays()._replace(**change)])
    with pytest.raises(ValueError, match=re.escape(message)):
        load_idx(files, 10, tmp_path, [])


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_from_the_mirror_to_the_dataset(module, server, tmp_path, monkeypatch):
    source = arrays()
    contents = [gzipped(idx_bytes(array)) for array in source]
    name = module.__name__.rpartition(".")[2]
    names = [file.name for file in module.FILES]
    table = IdxFiles(
        *[RemoteFile(n, hashlib.sha256(c).hexdigest(), len(c)) for n, c in zip(names, contents, strict=True)]
    )
    monkeypatch.setattr(module, "FILES", table)
    server.files = {f"/a/{n}": content for n, content in zip(names, contents, strict=True)}
    make = getattr(module, name)
    keys = {"split_seed": 0, "val_fraction": 0.2, "crop_padding": 2, "flip": True, "normalize": False}
    dataset = make(data_dir=str(tmp_path), mirrors=[server.address("a")], **keys)

    assert sorted(path.name for path in (tmp_path / name).glob("*.gz")) == sorted(names)
    assert dataset.offers["input_shape"] == (1, 28, 28)
    assert len(dataset.offers["class_names"]) == 10
    assert dataset.splits["val"]["targets"].bincount().tolist() == [1] * 10
    assert dataset.splits["train"]["targets"].bincount().tolist() == [5] * 10
    inputs, targets = dataset.splits["test"].values()
    assert torch.equal(inputs, torch.from_numpy(source.test_images).unsqueeze(1).float() / 255)
    assert torch.equal(targets, torch.from_numpy(source.test_labels).long())
    assert next(dataset.train_batches(7, 0, 0))["inputs"].shape == (7, 1, 28, 28)
    make(data_dir=str(tmp_path), mirrors=[], **keys)
    assert set(server.requests.values()) == {1}
