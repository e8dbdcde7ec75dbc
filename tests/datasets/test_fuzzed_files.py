"""Any bytes are a sound dataset, or are refused in one line; a container's content is changed within it too."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutations, same_every_time
from shipped import dataset_keys

from node_cli.datasets.cifar10 import RECORD_BYTES, TEST_MEMBER, TRAIN_MEMBERS, read_archive
from node_cli.datasets.idx import read_idx
from node_cli.datasets.npz import npz
from node_cli.datasets.series.own_table import own_table

pytestmark = pytest.mark.slow

IDX = b"\0\0\10\3\0\0\0\3\0\0\0\4\0\0\0\5" + bytes(range(60))
POINTS, TARGETS = np.random.default_rng(0).normal(size=(30, 2)).astype("f4"), np.arange(30) % 2
KEYS = dataset_keys("npz") | {"val": 0.2, "test": 0.2, "normalize": False}
TABLE = b"""who,day,dose,a,b
x,0,0,1,5
x,1.5,1,2,
x,2,0,-3e1,7
x,4,1,5,8
"y",0,2,3.25,6
y,1,1,4,4
y,3,1,,5
y,7,1,1,1
"""
KEYS_OF_TABLE = dataset_keys("csv") | {"time": "day", "series": "who", "controls": ["dose"], "val": 1, "test": 1}


def tar_header(name: str, size: int) -> bytes:
    head = bytearray(512)
    head[: len(name)] = name.encode()
    head[100:156] = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"0" * 11 + b"\0" + b" " * 8
    head[156:157] = b"0"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def tar() -> bytes:
    record = bytes([1]) + bytes(RECORD_BYTES - 1)
    padded = record + bytes(-len(record) % 512)
    return b"".join(tar_header(name, len(record)) + padded for name in (*TRAIN_MEMBERS, TEST_MEMBER)) + bytes(1024)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped(inputs: bytes, targets: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("inputs.npy", inputs)
        archive.writestr("targets.npy", targets)
    return stream.getvalue()


SOUND = zipped(npy(POINTS), npy(TARGETS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def refused_or(read) -> object:
    """What was read; None if it was refused, as it should be."""
    try:
        return read()
    except (ValueError, FileNotFoundError) as error:
        refusal = error
    assert type(refusal) in (ValueError, FileNotFoundError)
    assert "\n" not in str(refusal)
    assert "file" in str(refusal)
    return None


def check_npz(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    dataset = refused_or(lambda: npz(**{**KEYS, "path": str(path)}))
    if dataset is not None:
        for split in dataset.splits.values():
            inputs, targets = split["inputs"], split["targets"]
            assert inputs.dtype == torch.float32
            assert inputs.isfinite().all()
            assert targets.shape == inputs.shape[:1]
            assert 0 <= targets.min() <= targets.max() < len(dataset.offers["class_names"])


def check_idx(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    array = refused_or(lambda: read_idx(path, 3))
    assert array is None or (array.ndim == 3 and array.dtype == np.uint8)


def check_cifar10(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for split in refused_or(lambda: read_archive(path)) or ():
        assert split["inputs"].shape[1:] == (3, 32, 32)
        assert split["targets"].max() <= 9


def check_table(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    refusal = None
    try:
        dataset = own_table(**{**KEYS_OF_TABLE, "path": str(path)})
    except ValueError as error:
        refusal = error
    if refusal is not None:
        assert type(refusal) is ValueError
        assert str(refusal).isprintable()
        assert len(str(refusal)) < 2000
        return False
    for split in dataset.splits.values():
        for name in ("times", "values", "controls"):
            assert split[name].isfinite().all()
        assert (split["times"].diff() >= 0).all()
        assert not split["values"][~(split["mask"] | split["target"])].any()
        assert split["target"].any(2).any(1).all()
    return True


def test_what_is_changed_was_sound(path):
    for check, content in ((check_npz, SOUND), (check_idx, gzip.compress(IDX)), (check_cifar10, gzip.compress(tar()))):
        check(path, content)
    assert npz(**{**KEYS, "path": str(_written(path, SOUND))}).offers["class_names"] == ("0", "1")
    assert read_idx(_written(path, gzip.compress(IDX)), 3).shape == (3, 4, 5)
    assert len(read_archive(_written(path, gzip.compress(tar())))[0]["targets"]) == 5

    assert check_table(path, TABLE)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@settings(same_every_time, max_examples=100)
@given(content=st.binary(max_size=600))
def test_any_bytes(path, content):
    check_table(path, content)
    for check in (check_npz, check_idx, check_cifar10):
        for packed in (content, gzip.compress(content, 1), zipped(content, npy(TARGETS))):
            check(path, packed)


@settings(same_every_time, max_examples=300)
@given(content=mutations(TABLE))
def test_a_changed_table(path, content):
    check_table(path, content)


@settings(same_every_time, max_examples=500)
@given(content=mutations(SOUND))
def test_a_changed_zip(path, content):
    check_npz(path, content)


@settings(same_every_time, max_examples=300)
@given(inputs=mutations(npy(POINTS)[:128]), targets=mutations(npy(TARGETS)[:128]), both=st.booleans())
def test_changed_arrays_in_a_whole_zip(path, inputs, targets, both):
    check_npz(path, zipped(inputs + npy(POINTS)[128:], (targets if both else npy(TARGETS)[:128]) + npy(TARGETS)[128:]))


@settings(same_every_time, max_examples=300)
@given(content=mutations(IDX), packed=mutations(gzip.compress(IDX, mtime=0)))
def test_changed_idx(path, content, packed):
    check_idx(path, gzip.compress(content, 1))
    check_idx(path, packed)


@settings(same_every_time, max_examples=300)
@given(head=mutations(tar()[:512]), fix=st.booleans(), packed=mutations(gzip.compress(tar(), mtime=0)))
def test_changed_tar(path, head, fix, packed):
    head = _with_checksum(head) if fix else head
    check_cifar10(path, gzip.compress(head + tar()[512:], 1))
    check_cifar10(path, packed)


def _with_checksum(head: bytes) -> bytes:
    """So that what was changed is looked at."""
    head = head[:148] + b" " * 8 + head[156:]
    return head[:148] + b"%06o\0 " % sum(head[:512]) + head[156:]


def test_checksums_of_zips_are_looked_at(path):
    with pytest.raises(ValueError, match="Bad CRC-32"):
        npz(**{**KEYS, "path": str(_written(path, SOUND.replace(POINTS.tobytes()[:8], bytes(8))))})
