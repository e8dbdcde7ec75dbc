import re
import zipfile

import numpy as np
import pytest
import torch
from shipped import dataset_keys

from node_cli.batch import num_samples
from node_cli.datasets.npz import npz
from node_cli.datasets.npz_file import opened_arrays

KEYS = dataset_keys("npz")
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(60, 3))
TARGETS = np.arange(60) % 3
GOOD = {"inputs": POINTS, "targets": TARGETS}


def load(tmp_path, arrays, **changes):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    return npz(**{**KEYS, "path": str(path), "normalize": False, **changes})


def test_points_are_split_by_class(tmp_path):
    dataset = load(tmp_path, GOOD)
    assert dataset.offers["input_shape"] == (3,)
    assert dataset.offers["class_names"] == ("0", "1", "2")
    assert {name: num_samples(split) for name, split in dataset.splits.items()} == {"train": 42, "val": 6, "test": 12}
    target_of = {
        tuple(row): int(target) for row, target in zip(POINTS.astype(np.float32).tolist(), TARGETS, strict=True)
    }
    for split in dataset.splits.values():
        inputs, targets = split["inputs"], split["targets"]
        assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
        assert [target_of[tuple(row)] for row in inputs.tolist()] == targets.tolist()


def test_images_are_augmented_and_bytes_are_scaled(tmp_path):
    images = RNG.integers(0, 256, (60, 2, 4, 4), np.uint8)
    dataset = load(tmp_path, {"inputs": images, "targets": TARGETS.astype(np.uint8)}, crop_padding=1, flip=True)
    assert dataset.offers["input_shape"] == (2, 4, 4)
    assert dataset.augmentation is not None
    rows = {tuple(row) for row in (torch.from_numpy(images).float() / 255).flatten(1).tolist()}
    assert {tuple(row) for row in dataset.splits["train"]["inputs"].flatten(1).tolist()} <= rows


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_every_floating_point_type_is_read(dtype, tmp_path):
    inputs = POINTS.astype(dtype)
    given = {"val_inputs": inputs[:6], "val_targets": TARGETS[:6]}
    dataset = load(tmp_path, {"inputs": inputs, "targets": TARGETS.astype(">i2"), **given})
    assert dataset.splits["val"]["inputs"].tolist() == inputs[:6].astype("f4").tolist()
    assert dataset.splits["val"]["targets"].tolist() == TARGETS[:6].tolist()


def test_given_splits_stay_and_the_others_are_cut(tmp_path):
    given = {"test_inputs": POINTS[:7] + 9, "test_targets": TARGETS[:7]}
    splits = load(tmp_path, {**GOOD, **given}).splits
    assert {name: num_samples(split) for name, split in splits.items()} == {"train": 54, "val": 6, "test": 7}
    given |= {"val_inputs": POINTS[:5] - 9, "val_targets": TARGETS[:5]}
    splits = load(tmp_path, {**GOOD, **given}).splits
    assert {name: num_samples(split) for name, split in splits.items()} == {"train": 60, "val": 5, "test": 7}
    assert torch.equal(splits["val"]["inputs"], torch.from_numpy(POINTS[:5] - 9).float())


def test_normalised_a_coordinate(tmp_path):
    inputs = load(tmp_path, GOOD, normalize=True).splits["train"]["inputs"]
    torch.testing.assert_close(inputs.mean(dim=0), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(inputs.std(dim=0, correction=0), torch.ones(3))


def test_without_targets_there_are_no_classes_and_splits_are_random(tmp_path):
    dataset = load(tmp_path, {"inputs": POINTS, "test_inputs": POINTS[:5]})
    assert {name: num_samples(split) for name, split in dataset.splits.items()} == {"train": 54, "val": 6, "test": 5}
    assert {name for split in dataset.splits.values() for name in split} == {"inputs"}
    assert dataset.offers.keys() == {"input_shape", "scaling"}
    seen = torch.cat([dataset.splits["train"]["inputs"], dataset.splits["val"]["inputs"]])
    assert sorted(seen.tolist()) == sorted(POINTS.astype(np.float32).tolist())
    bytes_ = load(tmp_path, {"inputs": RNG.integers(0, 256, (60, 1, 4, 4), np.uint8)})
    assert bytes_.offers["num_levels"] == 256


def test_labels_are_classes_by_their_names_or_values(tmp_path):
    kinds, rates = np.array(["b", "a", "c"])[TARGETS], np.arange(60) / 7
    arrays = {"inputs": POINTS, "kind": kinds, "rate": rates, "val_inputs": POINTS[:6], "val_kind": kinds[:6]}
    dataset = load(tmp_path, arrays, label="kind")
    assert (dataset.offers["class_names"], dataset.offers["class_counts"]) == (("a", "b", "c"), (16, 16, 16))
    assert dataset.splits["val"]["targets"].tolist() == [1, 0, 2, 1, 0, 2]
    arrays |= {"val_rate": rates[:6]}
    for label, names in (("rate", ("rate",)), (["rate"], ("rate",))):
        dataset = load(tmp_path, arrays, label=label, normalize=True)
        assert dataset.offers["target_names"] == names
        raw = dataset.offers["target_scaling"].undo(dataset.splits["val"]["targets"])
        np.testing.assert_allclose(raw[:, 0], rates[:6], atol=1e-5)
    for whole in (TARGETS * 1.0 + 4, TARGETS.astype(np.uint64) + np.uint64(2**63)):
        names = load(tmp_path, {"inputs": POINTS, "targets": whole}).offers["class_names"]
        assert names == tuple(str(int(whole[0]) + k) for k in range(3))
    dataset = load(tmp_path, {"inputs": POINTS, "targets": np.stack([rates, -rates], 1)})
    assert dataset.offers["target_names"] == ("targets_1", "targets_2")
    assert {name: num_samples(split) for name, split in dataset.splits.items()} == {"train": 42, "val": 6, "test": 12}


def changed(array, value):
    array = np.array(array)
    array[4] = value
    return array


MISTAKES = {
    "no inputs": ({"targets": TARGETS}, "holds no array inputs, only targets"),
    "no targets but those of a split": (
        {"inputs": POINTS, "val_inputs": POINTS, "val_targets": TARGETS},
        "holds no array targets, only inputs, val_inputs, val_targets",
    ),
    "val without inputs": ({"inputs": POINTS, "val_targets": TARGETS}, "holds no array targets, only inputs, val_targ"),
    "too few points": ({"inputs": POINTS[:4]}, "dataset.val=0.1 of 4 samples is none: give more, or a whole number"),
    "unlabelled val of other shape": (
        {"inputs": POINTS, "val_inputs": POINTS[:, :2]},
        "val_inputs has samples (2,), inputs has (3,); must be equal",
    ),
    "nothing": ({}, "holds no array inputs, only nothing"),
    "half a split": ({**GOOD, "val_inputs": POINTS}, "holds no array val_targets, only inputs, targets, val_inputs"),
    "the other half": ({**GOOD, "test_targets": TARGETS}, "holds no array test_inputs, only"),
    "unknown array": (
        {**GOOD, "valid_inputs": POINTS},
        "holds valid_inputs; allowed are inputs, targets, val_inputs, val_targets, test_inputs, test_targets",
    ),
    "objects": ({**GOOD, "targets": TARGETS.astype(object)}, "holds targets, which cannot be read: Object arrays"),
    "integer inputs": (
        {**GOOD, "inputs": POINTS.astype(int)},
        "inputs has dtype int64, must be floating point or uint8",
    ),
    "complex inputs": ({**GOOD, "inputs": POINTS + 0j}, "inputs has dtype complex128"),
    "bytes as targets": ({**GOOD, "targets": TARGETS.astype("S1")}, "targets has dtype |S1, must be words or numbers"),
    "one dimension": ({**GOOD, "inputs": POINTS[:, 0]}, "inputs has shape (60,), must be (n, d) or (n, c, h, w)"),
    "three dimensions": ({**GOOD, "inputs": POINTS[None]}, "inputs has shape (1, 60, 3), must be"),
    "no features": ({**GOOD, "inputs": POINTS[:, :0]}, "inputs has shape (60, 0), must be"),
    "no samples": ({"inputs": POINTS[:0], "targets": TARGETS[:0]}, "inputs has shape (0, 3), must be"),
    "other length": ({**GOOD, "targets": TARGETS[:-1]}, "targets has shape (59,), must be (60,), one entry a sample"),
    "nan": ({**GOOD, "inputs": changed(POINTS, np.nan)}, "inputs holds values that are NaN or infinite in float32"),
    "too large": (
        {**GOOD, "inputs": changed(POINTS, 1e300)},
        "inputs holds values that are NaN or infinite in float32",
    ),
    "many labels": (
        {**GOOD, "targets": np.arange(60) + 1},
        "class 1 has 1 sample(s), too few to leave one in every split; give more samples or other fractions; to read",
    ),
    "one class": ({**GOOD, "targets": 0 * TARGETS}, "targets of {path} has one class, 0; at least 2 are needed"),
    "rare class": ({**GOOD, "targets": changed(TARGETS % 2, 2)}, "class 2 has 1 sample(s), too few to leave one in"),
    "nan in val": (
        {**GOOD, "val_inputs": POINTS * np.inf, "val_targets": TARGETS},
        "val_inputs holds values that are NaN",
    ),
    "val of other shape": (
        {**GOOD, "val_inputs": POINTS[:, :2], "val_targets": TARGETS},
        "val_inputs has samples (2,), inputs has (3,); must be equal",
    ),
    "test label": (
        {**GOOD, "test_inputs": POINTS, "test_targets": TARGETS + 1},
        "class 3 has no sample in train; give more samples of it, or leave it out",
    ),
    "test labels of another kind": (
        {**GOOD, "test_inputs": POINTS, "test_targets": TARGETS / 1},
        "test_targets has float64 () for a sample, targets has int64 (); must be alike",
    ),
}


@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named(mistake, tmp_path):
    arrays, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=re.escape(message.format(path=tmp_path / "mine.npz"))) as caught:
        load(tmp_path, arrays)
    assert str(caught.value).startswith("dataset")
    assert "\n" not in str(caught.value)


def test_points_cannot_be_cropped(tmp_path):
    with pytest.raises(ValueError, match=re.escape("dataset.crop_padding=1, dataset.flip=False: only images")):
        load(tmp_path, GOOD, crop_padding=1)


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(f"dataset.path: there is no file {path}; give an .npz")):
            npz(**{**KEYS, "path": str(path)})


@pytest.mark.parametrize("kind", ["text", "empty", "npy", "truncated"])
def test_another_file_is_named(kind, tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, **GOOD)
    whole = path.read_bytes()
    if kind == "npy":
        with path.open("wb") as stream:
            np.save(stream, POINTS)
    else:
        path.write_bytes({"text": b"1,2,3", "empty": b"", "truncated": whole[:-30]}[kind])
    with pytest.raises(ValueError, match=re.escape(f"dataset.path: {path} is not a whole .npz file")):
        npz(**{**KEYS, "path": str(path)})


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, **GOOD)
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds inputs, which cannot be read: Bad CRC-32"):
        npz(**{**KEYS, "path": str(path)})


def test_a_zip_of_something_else_is_named(tmp_path):
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inputs", "words")
        archive.writestr("targets", "words")
    with pytest.raises(ValueError, match=r"holds inputs, which cannot be read: it is no \.npy array"):
        npz(**{**KEYS, "path": str(path)})


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_is_read_a_few_samples_at_a_time(save, tmp_path):
    arrays = {"inputs": np.arange(60.0).reshape(10, 3, 2), "targets": np.arange(10)}
    save(tmp_path / "a.npz", **arrays)
    with opened_arrays(tmp_path / "a.npz", tuple(arrays)) as stored:
        assert (stored.num_samples, stored.shapes) == (10, {"inputs": (3, 2), "targets": ()})
        batches = list(stored.batches(4))
    assert [len(batch["inputs"]) for batch in batches] == [4, 4, 2]
    for name, array in arrays.items():
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), array)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"inputs": np.zeros((3, 2)), "targets": np.zeros(2)},
            "must hold samples, of each array as many; inputs has 3",
        ),
        ({"inputs": np.zeros((0, 2))}, "must hold samples, of each array as many; inputs has 0"),
        ({}, "must hold samples, of each array as many; it holds nothing"),
        ({"inputs": np.zeros((4, 3)).T}, "holds inputs, which cannot be read: it is in Fortran order; save numpy.asc"),
        ({"inputs": np.float64(1)}, "holds inputs, which cannot be read: it must have a dimension of samples, and is"),
        ({"inputs": np.array([None])}, "holds inputs, which cannot be read: Object arrays cannot be loaded"),
        ({"others": np.zeros(3)}, "holds others; allowed are inputs, targets"),
    ],
)
def test_a_file_that_cannot_be_read_in_pieces_is_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError) as error, opened_arrays(tmp_path / "a.npz", ("inputs", "targets")):
        pass
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_flipped_bit_in_the_last_batch_is_found(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=np.arange(60_000.0).reshape(30_000, 2))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(np.float64(59_999).tobytes())] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with opened_arrays(tmp_path / "a.npz", ("inputs",)) as stored:
        batches = stored.batches(20_000)
        assert len(next(batches)["inputs"]) == 20_000
        with pytest.raises(ValueError) as error:
            next(batches)
    assert "holds inputs, which cannot be read: Bad CRC-32" in str(error.value)
