import torch

from node_cli.datasets.augmentation import CropAndFlip, random_crop, random_flip

FILL = (-1.0, -2.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """The image `(2, height, width)` moved pixel by pixel."""
    moved = torch.tensor(FILL).view(2, 1, 1).repeat(1, *image.shape[1:])
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            if 0 <= row - down < image.shape[1] and 0 <= column - right < image.shape[2]:
                moved[:, row, column] = image[:, row - down, column - right]
    return moved


def all_shifts(image: torch.Tensor, padding: int) -> dict[tuple[int, int], torch.Tensor]:
    span = range(-padding, padding + 1)
    return {(down, right): shifted(image, down, right) for down in span for right in span}


def test_each_crop_is_a_shift_and_all_shifts_are_alike_frequent():
    images = torch.rand(1, 2, 4, 5).repeat(2500, 1, 1, 1)
    crops = random_crop(images, 2, FILL, generator())
    counts = {
        shift: int((crops == moved).all(dim=(1, 2, 3)).sum()) for shift, moved in all_shifts(images[0], 2).items()
    }
    assert sum(counts.values()) == 2500
    assert min(counts.values()) > 60  # 100 expected, deviation 10
    assert max(counts.values()) < 140


def test_crops_equal_a_slow_reference_sample_by_sample():
    images = torch.rand(30, 2, 4, 5)
    top, left = torch.randint(3, (2, 30), generator=generator(7))
    expected = [shifted(image, 1 - int(t), 1 - int(x)) for image, t, x in zip(images, top, left, strict=True)]
    assert torch.equal(random_crop(images, 1, FILL, generator(7)), torch.stack(expected))


def test_half_of_the_images_are_mirrored_left_to_right():
    images = torch.rand(2000, 1, 2, 3)
    flipped = random_flip(images, generator())
    same = (flipped == images).all(dim=(1, 2, 3))
    mirrored = (flipped == images[:, :, :, [2, 1, 0]]).all(dim=(1, 2, 3))
    assert bool((same ^ mirrored).all())
    assert 900 < int(mirrored.sum()) < 1100


def changed(augmentation, images, generator):
    batch = augmentation({"inputs": images, "targets": torch.arange(len(images))}, generator)
    assert torch.equal(batch["targets"], torch.arange(len(images)))
    return batch["inputs"]


def test_both_together_and_neither_change_the_originals():
    images = torch.rand(50, 2, 4, 5)
    before = images.clone()
    both = changed(CropAndFlip(1, True, FILL), images, generator(3))
    random = generator(3)
    assert torch.equal(both, random_flip(random_crop(images, 1, FILL, random), random))
    assert torch.equal(images, before)
    assert torch.equal(changed(CropAndFlip(1, True, FILL), images, generator(3)), both)
    assert not torch.equal(changed(CropAndFlip(1, True, FILL), images, generator(4)), both)


def test_only_what_is_asked_for_happens():
    images = torch.rand(50, 2, 4, 5)
    assert torch.equal(
        changed(CropAndFlip(1, False, FILL), images, generator()), random_crop(images, 1, FILL, generator())
    )
    assert torch.equal(changed(CropAndFlip(0, True, FILL), images, generator()), random_flip(images, generator()))
