"""Patches of photographs: what they come from, and that no split sees the pixels of another."""

import itertools

import numpy as np
import pytest
import torch
from shipped import dataset_keys
from sklearn.datasets import load_sample_image

from node_cli.datasets import patches as module
from node_cli.datasets.npz_file import read_arrays
from node_cli.datasets.patches import BLOCK, GUARD, PHOTOGRAPHS, patches


@pytest.mark.parametrize("name", ["china", "flower"])
def test_the_photographs_are_those_of_scikit_learn_grey_and_halved(name):
    grey = load_sample_image(f"{name}.jpg").astype(np.int64) @ [299, 587, 114]
    sums = grey[:426].reshape(213, 2, 320, 2).sum((1, 3))
    np.testing.assert_array_equal(read_arrays(PHOTOGRAPHS, ("china", "flower"))[name], (sums + 2000) // 4000)


def test_a_patch_is_its_pixels_without_their_mean_and_the_last_one():
    dataset = patches(**{**dataset_keys("patches"), "normalize": False})
    assert {name: tuple(split["inputs"].shape) for name, split in dataset.splits.items()} == {
        "train": (9464, 63),
        "val": (1352, 63),
        "test": (2704, 63),
    }
    corner = torch.from_numpy(read_arrays(PHOTOGRAPHS, ("china", "flower"))["china"][:8, :8]).double().flatten() / 256
    centred = corner - corner.mean()
    first = dataset.splits["val"]["inputs"][0]
    torch.testing.assert_close(first.double(), centred[:-1], rtol=0, atol=1.5 / 256)  # but for the noise
    assert dataset.offers.keys() == {"input_shape", "scaling"}


def test_noise_is_fixed_by_its_seed_and_the_data_are_the_same_for_every_seed():
    one, again, other = (patches(8, seed, False) for seed in (0, 0, 1))
    assert torch.equal(one.splits["test"]["inputs"], again.splits["test"]["inputs"])
    assert not torch.equal(one.splits["test"]["inputs"], other.splits["test"]["inputs"])
    assert one.digest == again.digest == other.digest


@pytest.mark.parametrize("stride", [3, 8])
def test_no_patch_touches_one_of_another_split(stride, monkeypatch):
    places = np.arange(213 * 320).reshape(213, 320)  # pixels that say where they are
    seen = {}
    monkeypatch.setattr(module, "read_arrays", lambda path, names: {"china": places})
    monkeypatch.setattr(module, "_points", lambda pixels, generator: pixels.float())
    for split, batch in patches(stride, 0, False).splits.items():
        rows, columns = np.divmod(batch["inputs"].long().unique().numpy(), 320)
        seen[split] = np.zeros((213, 320), bool)
        seen[split][rows, columns] = True
        assert seen[split].any()
    for one, other in itertools.combinations(seen.values(), 2):
        grown = np.zeros_like(one)
        for row, column in np.argwhere(one):
            grown[max(0, row - GUARD + 1) : row + GUARD, max(0, column - GUARD + 1) : column + GUARD] = True
        assert not (grown & other).any()
    assert BLOCK % 8 == 0


def test_a_stride_of_nothing_is_refused():
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        patches(0, 0, True)
