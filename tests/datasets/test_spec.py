"""What a checkpoint keeps of a dataset, and raw inputs made into what the model was trained on."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from shipped import dataset_keys

from node_cli.datasets import digits as digits_module
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.digits import digits
from node_cli.datasets.moons import moons
from node_cli.datasets.npz import npz
from node_cli.datasets.scaling import Preprocessing, Scaling
from node_cli.datasets.spec import DataSpec, SampleSpec
from node_cli.datasets.splitting import stratified_splits

SPLIT = {"split_seed": 0, "val_fraction": 0.1, "test_fraction": 0.2}
IMAGES = {"crop_padding": 0, "flip": False, "normalize": True}


def reread(spec):
    """Through a checkpoint."""
    file = io.BytesIO()
    torch.save(spec.state_dict(), file)
    file.seek(0)
    return DataSpec.from_state_dict(torch.load(file, weights_only=True))


def of_digits(folder):
    rows = torch.from_numpy(np.loadtxt(digits_module.PIXELS_AND_TARGET, dtype=np.int64, delimiter=","))
    raw = {"inputs": rows[:, :-1].reshape(-1, 1, 8, 8), "targets": rows[:, -1]}
    raw = stratified_splits(raw, {"test": 0.2, "val": 0.1}, 0)["test"]
    return digits(**SPLIT, **IMAGES), raw["inputs"]


def of_arrays(folder, inputs):
    test = {"test_inputs": inputs[::2], "test_targets": np.arange(len(inputs))[::2] // 2 % 2}
    np.savez(folder / "x.npz", inputs=inputs, targets=np.arange(len(inputs)) % 2, **test)
    return npz(**{**dataset_keys("npz"), "path": str(folder / "x.npz")}), inputs[::2]


def of_bytes(folder):
    return of_arrays(folder, np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8))


def of_floats(folder):
    return of_arrays(folder, np.random.default_rng(0).normal(size=(40, 3)) * 1e3 + 5e4)


def of_moons(folder):
    dataset = moons(num_samples=60, noise=0.1, data_seed=0, **SPLIT)
    return dataset, dataset.splits["test"]["inputs"]


@pytest.mark.parametrize(
    ("make", "num_levels"), [(of_digits, 17), (of_bytes, 256), (of_floats, None), (of_moons, None)]
)
def test_how_many_values_a_raw_input_can_have_is_kept(make, num_levels, tmp_path):
    dataset, _ = make(tmp_path)
    assert reread(DataSpec.of(dataset)).offers.get("num_levels") == num_levels


@pytest.mark.parametrize("make", [of_digits, of_bytes, of_floats, of_moons])
def test_raw_inputs_become_those_of_the_split_to_the_last_bit(make, tmp_path):
    dataset, raw = make(tmp_path)
    spec = reread(DataSpec.of(dataset))
    assert spec == DataSpec.of(dataset)
    assert torch.equal(spec.prepared({"inputs": raw}, ("inputs",))["inputs"], dataset.splits["test"]["inputs"])


def test_images_of_8_bits_may_come_as_fractions(tmp_path):
    dataset, raw = of_bytes(tmp_path)
    prepared = DataSpec.of(dataset).prepared({"inputs": raw / np.float32(255)}, ("inputs",))
    assert torch.equal(prepared["inputs"], dataset.splits["test"]["inputs"])


SPEC = DataSpec(
    {"class_names": ("a", "b")},
    {"inputs": SampleSpec((2,), "float32"), "bytes": SampleSpec((2,), "float32"), "targets": SampleSpec((), "int64")},
    {"inputs": Preprocessing(None, Scaling((1.0, 2.0), (3.0, 4.0))), "bytes": Preprocessing(255.0)},
)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "inputs is missing: the model was trained on inputs (n, 2), bytes (n, 2), targets (n,)"),
        (
            {"inputs": np.zeros((3, 2)), "other": np.zeros(3)},
            "other is unknown: the model was trained on inputs (n, 2)",
        ),
        ({"inputs": np.zeros((3, 3))}, "inputs must be (n, 2), got (3, 3)"),
        ({"inputs": np.zeros(2)}, "inputs must be (n, 2), got (2,)"),
        ({"inputs": np.float32(1)}, "inputs must be (n, 2), got ()"),
        ({"inputs": [["a", "b"]]}, "inputs must be an array of numbers ("),
        ({"inputs": np.zeros((0, 2))}, "there must be samples, of each tensor as many, got {'inputs': 0}"),
        (
            {"inputs": np.zeros((3, 2)), "targets": np.zeros(2, int)},
            "there must be samples, of each tensor as many, got {'inputs': 3, 'targets': 2}",
        ),
        (
            {"inputs": np.zeros((3, 2), int)},
            "inputs must be floating point, in the units that the model was trained on,",
        ),
        ({"inputs": np.zeros((3, 2), complex)}, "inputs must be numbers, got complex128"),
        ({"inputs": np.full((3, 2), np.inf)}, "inputs holds values that are NaN or infinite in float32"),
        ({"inputs": np.full((3, 2), 1e300)}, "inputs holds values that are NaN or infinite in float32"),
        (
            {"inputs": np.zeros((1, 2)), "bytes": np.full((1, 2), 200.0)},
            "bytes must be from 0 to 1, or uint8, 0 to 255, got 200 to 200",
        ),
        (
            {"inputs": np.zeros((1, 2)), "bytes": np.full((1, 2), 200)},
            "bytes must be uint8, 0 to 255, or floating point, 0 to 1, got int64",
        ),
        ({"inputs": np.zeros((1, 2)), "targets": np.full(1, 0.5)}, "targets must be of dtype int64, got float64"),
    ],
)
def test_what_is_not_like_the_training_data_is_refused(raw, message):
    with pytest.raises(ValueError) as error:
        SPEC.prepared(raw, ("inputs",))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_all_tensors_are_needed_where_the_task_names_none():
    with pytest.raises(ValueError, match="bytes is missing"):
        SPEC.prepared({"inputs": np.zeros((3, 2))}, None)


def test_offers_that_are_not_plain_are_not_kept():
    batch = {"inputs": torch.zeros(2, 1)}
    dataset = Dataset(dict.fromkeys(("train", "val", "test"), batch), {"reader": Path("x")})
    assert DataSpec.of(dataset).state_dict() == {}


@pytest.mark.parametrize(
    "change",
    [
        {"samples": {}},
        {"samples": {"inputs": {"shape": (-1,), "dtype": "float32"}}},
        {"samples": {"inputs": {"shape": (2**30, 2**30), "dtype": "float32"}}},
        {"samples": {"inputs": {"shape": (2,), "dtype": "object"}}},
        {"samples": {"inputs": {"shape": 2, "dtype": "float32"}}},
        {"samples": None},
        {"offers": {1.5: 2}},
        {"offers": None},
        {"offers": {"input_shape": "ab"}},
        {"offers": {"class_names": ("a", 1)}},
        {"offers": {"column_names": ("a", 1)}},
        {"offers": {"num_levels": 1}},
        {"offers": {"num_levels": 17.0}},
        {"offers": {"num_levels": 2**40}},
        {"scalings": {"scaling": {"mean": (1.0,), "std": (0.0,)}}},
        {"scalings": {"scaling": {"mean": (1.0,), "std": (1.0, 1.0)}}},
        {"scalings": {"scaling": {"mean": ("a",), "std": (1.0,)}}},
        {"preprocessing": {"inputs": {"highest": -1.0, "scaling": None}}},
        {"preprocessing": {"inputs": {"highest": None}}},
        {"preprocessing": {"other": {"highest": None, "scaling": None}}},
        {"preprocessing": {"inputs": {"highest": None, "scaling": {"mean": (1.0,), "std": (1.0,)}}}},
    ],
)
def test_damage_is_named(change):
    with pytest.raises(ValueError, match="what it holds of its dataset is damaged"):
        DataSpec.from_state_dict(SPEC.state_dict() | change)
