import torch
from sklearn.datasets import load_digits

from node_cli.batch import num_samples
from node_cli.datasets.digits import digits

KEYS = {"split_seed": 0, "val_fraction": 0.1, "test_fraction": 0.2, "crop_padding": 1, "flip": False}


def test_the_real_digits_are_split_by_class():
    dataset = digits(**KEYS, normalize=False)
    assert dataset.offers["input_shape"] == (1, 8, 8)
    assert dataset.offers["class_names"] == tuple("0123456789")
    assert sum(num_samples(split) for split in dataset.splits.values()) == 1797
    whole = torch.from_numpy(load_digits().target).bincount()
    for name, fraction in [("val", 0.1), ("test", 0.2)]:
        assert dataset.splits[name]["targets"].bincount().tolist() == [int(n * fraction + 0.5) for n in whole.tolist()]


def test_pixels_lie_between_zero_and_one_and_belong_to_their_targets():
    source = {tuple(image.flatten()): target for image, target in zip(*load_digits(return_X_y=True), strict=True)}
    for split in digits(**KEYS, normalize=False).splits.values():
        inputs, targets = split["inputs"], split["targets"]
        assert (float(inputs.min()), float(inputs.max())) == (0.0, 1.0)
        assert inputs.dtype == torch.float32
        assert [source[tuple(row)] for row in (16 * inputs).flatten(1).tolist()] == targets.tolist()


def test_normalised_by_the_training_split():
    inputs = digits(**KEYS, normalize=True).splits["train"]["inputs"]
    assert abs(float(inputs.mean())) < 1e-5
    assert abs(float(inputs.std(correction=0)) - 1) < 1e-5
