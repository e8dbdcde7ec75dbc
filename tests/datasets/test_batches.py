import pytest
import torch

from node_cli.datasets.base import Augmentation, Dataset, Split


class AddNoise:
    """Randomness that shows in every value."""

    def __call__(self, inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return inputs + torch.rand(inputs.shape, generator=generator)


def numbered(augmentation: Augmentation | None = None, size: int = 23) -> Dataset:
    """Sample k has the input k and the target k % 2."""
    inputs = torch.arange(float(size))[:, None]
    split = Split(inputs, torch.arange(size) % 2)
    return Dataset({"train": split, "val": split, "test": split}, ("even", "odd"), augmentation)


def rows(dataset: Dataset, *args: int) -> list[list[float]]:
    return [batch.inputs.flatten().tolist() for batch in dataset.train_batches(*args)]


def test_shapes_and_sizes():
    dataset = numbered()
    assert dataset.input_shape == (1,)
    assert dataset.num_classes == 2
    assert [dataset.num_train_batches(size) for size in (1, 22, 23, 24)] == [23, 2, 1, 1]


def test_an_epoch_holds_each_training_sample_once_with_its_target():
    batches = list(numbered().train_batches(5, 0, 0))
    assert [len(batch.targets) for batch in batches] == [5, 5, 5, 5, 3]
    inputs = torch.cat([batch.inputs.flatten() for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
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
    zeros = Split(torch.zeros(8, 1), torch.zeros(8, dtype=torch.int64))
    dataset = Dataset({"train": zeros}, ("only",), AddNoise())
    noise = [value for row in rows(dataset, 2, 0, 0) + rows(dataset, 2, 0, 1) for value in row]
    assert len(set(noise)) == 16


def test_augmentation_does_not_draw_the_numbers_of_the_order_again():
    drawn = []

    def draw(inputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        drawn.append(torch.randperm(23, generator=generator).tolist())
        return inputs

    assert rows(numbered(draw), 23, 0, 0) != drawn


def test_evaluation_batches_come_in_order_without_augmentation():
    batches = list(numbered(AddNoise()).batches("val", 10))
    assert [batch.inputs.flatten().tolist() for batch in batches] == [
        list(range(10)),
        list(range(10, 20)),
        list(range(20, 23)),
    ]
    assert torch.equal(torch.cat([batch.targets for batch in batches]), torch.arange(23) % 2)


def test_to_moves_every_split():
    moved = numbered().to(torch.device("meta"))
    assert {tensor.device.type for split in moved.splits.values() for tensor in split} == {"meta"}
    assert moved.class_names == ("even", "odd")
