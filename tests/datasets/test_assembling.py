import re

import pytest
import torch

from node_cli.datasets.assembling import assemble, assemble_official
from node_cli.datasets.augmentation import CropAndFlip
from node_cli.datasets.scaling import fit_scaling


def random_split(size: int, *shape: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1.0, shape[0] + 1).view(-1, *[1] * (len(shape) - 1))
    return {"inputs": scale * (0.3 + torch.rand(size, *shape, generator=generator)), "targets": torch.arange(size) % 2}


@pytest.mark.parametrize("shape", [(3, 4, 5), (3,)])
def test_the_training_split_alone_sets_mean_and_std_of_each_channel(shape):
    splits = {"train": random_split(40, *shape), "test": random_split(10, *shape, seed=1)}
    dataset = assemble(splits, ("a", "b"), 0, False, True)
    result, scaling = dataset.splits, dataset.offers["scaling"]
    for channel in range(3):
        values = splits["train"]["inputs"][:, channel].double()
        mean, std = values.mean(), values.std(correction=0)
        assert (scaling.mean[channel], scaling.std[channel]) == pytest.approx((mean.item(), std.item()), rel=1e-5)
        for name, split in splits.items():
            expected = (split["inputs"][:, channel].double() - mean) / std
            torch.testing.assert_close(result[name]["inputs"][:, channel].double(), expected, rtol=1e-5, atol=1e-5)
    for name, split in splits.items():
        torch.testing.assert_close(scaling.undo(result[name]["inputs"]), split["inputs"])
    assert result["test"]["inputs"].dtype == torch.float32
    assert abs(float(result["test"]["inputs"].mean())) > 1e-3


def test_without_normalisation_the_inputs_stay():
    split = random_split(4, 1, 2, 2)
    dataset = assemble({"train": split}, ("a", "b"), 0, False, False)
    assert torch.equal(dataset.splits["train"]["inputs"], split["inputs"])
    assert (dataset.augmentation, dataset.offers["scaling"]) == (None, None)
    assert dataset.offers["class_counts"] == (2, 2)


def test_a_constant_channel_is_refused():
    inputs = torch.rand(9, 3)
    inputs[:, 1] = 0.1
    with pytest.raises(ValueError, match=re.escape("dataset.normalize: channel(s) [1] of the inputs have one value")):
        fit_scaling(inputs)


def test_images_are_padded_with_black():
    split = random_split(20, 2, 3, 3)
    split["inputs"][0, :, 0, 0] = 0.0
    dataset = assemble({"train": split}, ("a", "b"), 1, False, True)
    assert isinstance(dataset.augmentation, CropAndFlip)
    assert list(dataset.augmentation.fill) == dataset.splits["train"]["inputs"][0, :, 0, 0].tolist()
    assert max(dataset.augmentation.fill) < -1
    plain = assemble({"train": split}, ("a", "b"), 1, False, False)
    assert plain.augmentation == CropAndFlip(1, False, (0.0, 0.0))


@pytest.mark.parametrize(("padding", "flip"), [(1, False), (0, True)])
def test_points_cannot_be_augmented(padding, flip):
    message = f"dataset.crop_padding={padding}, dataset.flip={flip}: only images (channels, height, width) can be"
    with pytest.raises(ValueError, match=re.escape(message)):
        assemble({"train": random_split(8, 2)}, ("a", "b"), padding, flip, False)


def test_negative_padding_is_refused():
    with pytest.raises(ValueError, match=re.escape("crop_padding must be at least 0, got -1")):
        assemble({"train": random_split(8, 1, 2, 2)}, ("a", "b"), -1, False, False)


def test_an_official_test_split_stays_whole_and_bytes_become_floats():
    pixels = torch.arange(240, dtype=torch.uint8).view(60, 1, 2, 2)
    train = {"inputs": pixels, "targets": torch.arange(60) % 2}
    test = {"inputs": 255 - pixels[:10], "targets": torch.arange(10) % 2}
    dataset = assemble_official(train, test, ("a", "b"), 0, 0.1, 0, False, False)
    splits = dataset.splits
    assert dataset.offers["num_levels"] == 256
    assert torch.equal(splits["test"]["inputs"], test["inputs"].float() / 255)
    assert splits["val"]["targets"].bincount().tolist() == [3, 3]
    assert splits["train"]["targets"].bincount().tolist() == [27, 27]
    assert {split["inputs"].dtype for split in splits.values()} == {torch.float32}
    assert {split["targets"].dtype for split in splits.values()} == {torch.int64}
