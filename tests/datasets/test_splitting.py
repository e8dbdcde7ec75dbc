import re

import pytest
import torch

from node_cli.datasets.splitting import stratified_splits

FRACTIONS = {"test": 0.2, "val": 0.1}


def samples(sizes: list[int]) -> dict[str, torch.Tensor]:
    """Class k has sizes[k] samples, mixed; the input is the sample's own number."""
    targets = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(5))]
    return {"inputs": torch.arange(float(len(targets)))[:, None], "targets": targets}


def test_splits_are_disjoint_and_complete_and_keep_targets_and_order():
    whole = samples([50, 31, 20])
    splits = stratified_splits(whole, FRACTIONS, 0)
    assert set(splits) == {"train", "val", "test"}
    numbers = torch.cat([split["inputs"].flatten() for split in splits.values()])
    assert numbers.sort().values.tolist() == list(range(101))
    for split in splits.values():
        indices = split["inputs"].flatten().long()
        assert indices.tolist() == sorted(indices.tolist())
        assert torch.equal(split["targets"], whole["targets"][indices])


def test_every_class_has_its_share_rounded_half_up():
    splits = stratified_splits(samples([50, 35, 14, 12]), {"test": 0.2, "val": 0.1}, 0)
    assert splits["test"]["targets"].bincount().tolist() == [10, 7, 3, 2]
    assert splits["val"]["targets"].bincount().tolist() == [5, 4, 1, 1]
    assert splits["train"]["targets"].bincount().tolist() == [35, 24, 10, 9]


def test_the_seed_alone_fixes_the_splits():
    def chosen(seed: int) -> list[float]:
        return stratified_splits(samples([50, 50]), FRACTIONS, seed)["val"]["inputs"].flatten().tolist()

    first = chosen(0)
    torch.rand(1)
    assert chosen(0) == first
    assert chosen(1) != first


def test_the_test_split_does_not_move_with_the_validation_fraction():
    one = stratified_splits(samples([50, 50]), {"test": 0.2, "val": 0.1}, 0)
    other = stratified_splits(samples([50, 50]), {"test": 0.2, "val": 0.3}, 0)
    assert torch.equal(one["test"]["inputs"], other["test"]["inputs"])
    assert len(one["val"]["inputs"]) < len(other["val"]["inputs"])


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"val": 0.0}, "dataset.val_fraction: got 0.0, must lie between 0 and 1"),
        ({"val": 1.5}, "dataset.val_fraction: got 1.5, must lie"),
        ({"test": float("nan"), "val": 0.1}, "dataset.test_fraction: got nan, must lie"),
        ({"test": 0.5, "val": 0.5}, "dataset.test_fraction + dataset.val_fraction: got 1.0, must be below 1"),
        ({"val": 0.04}, "dataset.val_fraction=0.04: class 1 has 10 sample(s), too few"),
        ({"val": 0.96}, "dataset.val_fraction=0.96: class 1 has 10 sample(s), too few"),
        ({"test": 0.45, "val": 0.45}, "dataset.test_fraction=0.45, dataset.val_fraction=0.45: class 1 has 10"),
    ],
)
def test_refusals(fractions, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        stratified_splits(samples([50, 10]), fractions, 0)
