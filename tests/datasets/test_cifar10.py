import gzip
import hashlib
import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from node_cli.batch import num_samples
from node_cli.datasets import cifar10
from node_cli.datasets.cifar10 import TEST_MEMBER, TRAIN_MEMBERS, read_archive
from node_cli.datasets.download import RemoteFile

LABELS = np.arange(20, dtype=np.uint8) % 10


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).integers(0, 256, (20, 3, 32, 32), np.uint8)


def records(batch: int, labels: np.ndarray = LABELS) -> bytes:
    return b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images(batch), strict=True))


def members() -> dict[str, bytes]:
    return {name: records(batch) for batch, name in enumerate((*TRAIN_MEMBERS, TEST_MEMBER))}


def packed(contents: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for other in others:
            archive.addfile(other, io.BytesIO(bytes(other.size)))
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "archive.tar.gz"
    path.write_bytes(content)
    return path


def test_records_become_images_and_labels(tmp_path):
    train, test = read_archive(written(tmp_path, packed(members())))
    assert torch.equal(train["inputs"], torch.from_numpy(np.concatenate([images(batch) for batch in range(5)])))
    assert torch.equal(test["inputs"], torch.from_numpy(images(5)))
    assert train["targets"].tolist() == LABELS.tolist() * 5
    assert test["targets"].dtype == torch.int64


def test_members_with_odd_paths_are_written_nowhere(tmp_path, monkeypatch):
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    link = tarfile.TarInfo("cifar-10-batches-bin/readme.html")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    odd = [tarfile.TarInfo("../escaped.bin"), tarfile.TarInfo(str(tmp_path / "absolute.bin"))]
    for member in odd:
        member.size = 7
    path = written(tmp_path, packed(members(), link, *odd))
    train, _ = read_archive(path)
    assert num_samples(train) == 100
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["archive.tar.gz", "inner"]


def folder_for_batch() -> bytes:
    contents = members()
    del contents[TEST_MEMBER]
    link = tarfile.TarInfo(TEST_MEMBER)
    link.type = tarfile.DIRTYPE
    return packed(contents, link)


def without(name: str) -> dict[str, bytes]:
    return {member: content for member, content in members().items() if member != name}


BAD_LABEL = {TEST_MEMBER: records(5, np.full(20, 10, np.uint8))}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain", "not a whole tar.gz archive"),
        (b"", "not a whole tar.gz archive"),
        (gzip.compress(b"no tar" * 200), "not a whole tar.gz archive"),
        (packed(members())[:-5000], "not a whole tar.gz archive"),
        (packed(without(TRAIN_MEMBERS[2])), f"does not hold {TRAIN_MEMBERS[2]}"),
        (folder_for_batch(), f"{TEST_MEMBER} is no file, but a link, a folder or a device"),
        (
            packed({**members(), TEST_MEMBER: records(5)[:-1]}),
            f"{TEST_MEMBER} has 61459 bytes, must be a multiple of 3073",
        ),
        (packed({**members(), TEST_MEMBER: b""}), f"{TEST_MEMBER} has 0 bytes"),
        (packed({**members(), **BAD_LABEL}), f"{TEST_MEMBER} holds the label 10, allowed: 0 to 9"),
    ],
    ids=["plain", "empty", "no tar", "truncated", "missing", "folder", "short", "no records", "label"],
)
def test_damaged_archives_are_named(content, message, tmp_path):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        read_archive(path)


def test_from_the_mirror_to_the_dataset(server, tmp_path, monkeypatch):
    content = packed(members())
    archive = RemoteFile(cifar10.ARCHIVE.name, hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr(cifar10, "ARCHIVE", archive)
    server.files[f"/a/{archive.name}"] = content
    dataset = cifar10.cifar10(
        data_dir=str(tmp_path),
        mirrors=[server.address("a")],
        split_seed=0,
        val_fraction=0.1,
        crop_padding=4,
        flip=True,
        normalize=True,
    )
    assert (tmp_path / "cifar10" / archive.name).read_bytes() == content
    assert dataset.offers["input_shape"] == (3, 32, 32)
    assert {name: num_samples(split) for name, split in dataset.splits.items()} == {"train": 90, "val": 10, "test": 20}
    batch = next(dataset.train_batches(8, 0, 0))
    assert batch["inputs"].shape == (8, 3, 32, 32)
    assert batch["inputs"].dtype == torch.float32
