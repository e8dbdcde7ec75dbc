from collections.abc import Iterable

import pytest
import torch

from node_cli.batch import Batch
from node_cli.datasets.dataset import Augmentation, Dataset


class AddNoise:
    """Randomness that shows in every value."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return {**batch, "inputs": batch["inputs"] + torch.rand(batch["inputs"].shape, generator=generator)}


def numbered(augmentation: Augmentation | None = None, size: int = 23) -> Dataset:
    """Sample k has the input k and the target k % 2."""
    inputs = torch.arange(float(size))[:, None]
    split = {"inputs": inputs, "targets": torch.arange(size) % 2}
    return Dataset({"train": split, "val": split, "test": split}, {"class_names": ("even", "odd")}, augmentation)


def rows_of(batches: Iterable[Batch]) -> list[list[float]]:
    return [batch["inputs"].flatten().tolist() for batch in batches]


def rows(dataset: Dataset, *args: int) -> list[list[float]]:
    return rows_of(dataset.train_batches(*args))


def test_the_last_smaller_batch_counts():
    dataset = numbered()
    assert [dataset.num_batches("train", size) for size in (1, 22, 23, 24)] == [23, 2, 1, 1]


def test_tensors_may_have_any_names_and_stay_together():
    split = {"t": torch.arange(7.0), "y": torch.arange(14.0).view(7, 2), "mask": torch.arange(7) % 2 == 0}
    for batch in Dataset({"train": split}).train_batches(3, 0, 0):
        assert list(batch) == ["t", "y", "mask"]
        assert torch.equal(batch["y"][:, 0], 2 * batch["t"])
        assert torch.equal(batch["mask"], batch["t"] % 2 == 0)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": {"x": torch.zeros(3), "y": torch.zeros(2)}},
            "dataset: split train must have tensors of equally many samples, got {'x': 3, 'y': 2}",
        ),
        (
            {"train": {"x": torch.zeros(3)}, "val": {"y": torch.zeros(2)}},
            "dataset: all splits must have the same tensors, got {'train': ['x'], 'val': ['y']}",
        ),
        ({"train": {}}, "dataset: split train must have tensors of equally many samples, got {}"),
    ],
)
def test_splits_that_do_not_fit_together_are_refused(splits, message):
    with pytest.raises(ValueError) as refusal:
        Dataset(splits)
    assert str(refusal.value) == message


def test_an_epoch_of_more_batches_takes_each_pass_in_another_order_and_begins_like_one_pass():
    dataset = numbered(AddNoise(), size=6)
    once, more = ([*dataset.train_batches(4, 0, 0, count=count)] for count in (None, 6))
    orders = [torch.cat([batch["inputs"].floor() for batch in more[k : k + 2]]).flatten().tolist() for k in (0, 2, 4)]
    assert len(more) == 6
    assert all(torch.equal(a["inputs"], b["inputs"]) for a, b in zip(once, more, strict=False))
    assert [sorted(order) for order in orders] == [[*range(6)]] * 3
    assert len(set(map(tuple, orders))) == 3
    for start in range(6):
        again = [*dataset.train_batches(4, 0, 0, start, count=6)]
        assert all(torch.equal(a["inputs"], b["inputs"]) for a, b in zip(again, more[start:], strict=True))


def test_an_epoch_of_fewer_batches_takes_others_in_the_next_epoch():
    dataset = numbered(size=6)
    assert len({tuple(row) for epoch in range(9) for row in rows_of(dataset.train_batches(4, 0, epoch, count=1))}) > 1
    assert [len([*dataset.train_batches(4, 0, 0, count=count)]) for count in (1, 2, 3)] == [1, 2, 3]


def test_an_epoch_holds_each_training_sample_once_with_its_target():
    batches = list(numbered().train_batches(5, 0, 0))
    assert [len(batch["targets"]) for batch in batches] == [5, 5, 5, 5, 3]
    inputs = torch.cat([batch["inputs"].flatten() for batch in batches])
    targets = torch.cat([batch["targets"] for batch in batches])
    assert inputs.sort().values.tolist() == list(range(23))
    assert inputs.tolist() != list(range(23))
    assert torch.equal(targets, inputs.long() % 2)


@pytest.mark.parametrize("augmentation", [None, AddNoise()])
def test_batches_depend_on_seed_and_epoch_alone(augmentation):
    dataset = numbered(augmentation)
    first = rows(dataset, 5, 1, 2)
    torch.rand(3)
    rows(dataset, 7, 9, 9)
    assert rows(dataset, 5, 1, 2) == first
    assert rows(numbered(augmentation), 5, 1, 2) == first
    assert rows(dataset, 5, 2, 2) != first
    assert rows(dataset, 5, 1, 3) != first
    assert rows(dataset, 5, 2, 1) != first


def test_batches_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    rows(numbered(AddNoise()), 5, 0, 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("start", [0, 1, 3, 4, 5])
def test_start_goes_on_as_if_never_interrupted(start):
    dataset = numbered(AddNoise())
    assert rows(dataset, 5, 3, 7, start) == rows(dataset, 5, 3, 7)[start:]


def test_each_batch_is_augmented_differently():
    zeros = {"inputs": torch.zeros(8, 1), "targets": torch.zeros(8, dtype=torch.int64)}
    dataset = Dataset({"train": zeros}, augmentation=AddNoise())
    noise = [value for row in rows(dataset, 2, 0, 0) + rows(dataset, 2, 0, 1) for value in row]
    assert len(set(noise)) == 16


def test_augmentation_does_not_draw_the_numbers_of_the_order_again():
    drawn = []

    def draw(batch: Batch, generator: torch.Generator) -> Batch:
        drawn.append(torch.randperm(23, generator=generator).tolist())
        return batch

    assert rows(numbered(draw), 23, 0, 0) != drawn


def test_evaluation_batches_come_in_order_without_augmentation():
    batches = list(numbered(AddNoise()).batches("val", 10))
    assert [batch["inputs"].flatten().tolist() for batch in batches] == [
        list(range(10)),
        list(range(10, 20)),
        list(range(20, 23)),
    ]
    assert torch.equal(torch.cat([batch["targets"] for batch in batches]), torch.arange(23) % 2)


def test_to_moves_every_split():
    moved = numbered().to(torch.device("meta"), torch.float64)
    assert {tensor.device.type for split in moved.splits.values() for tensor in split.values()} == {"meta"}
    assert [tensor.dtype for tensor in moved.splits["val"].values()] == [torch.float64, torch.int64]
    assert moved.offers["class_names"] == ("even", "odd")
