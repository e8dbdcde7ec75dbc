"""From splits to a dataset: scaling and augmentation."""

from __future__ import annotations

from typing import Any

import torch

from node_cli.batch import Batch
from node_cli.datasets.augmentation import CropAndFlip
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.digest import exact_digest
from node_cli.datasets.scaling import EIGHT_BITS, Preprocessing, Scaling, fit_scaling
from node_cli.datasets.splitting import stratified_splits
from node_cli.ode.checks import require_at_least


def assemble(
    splits: dict[str, Batch],
    class_names: tuple[str, ...] | None,
    crop_padding: int,
    flip: bool,
    normalize: bool,
    digest: str | None = None,
    highest: float | None = None,
) -> Dataset:
    """Build a dataset of images or points, with classes or (None) without; train alone sets the normalisation.

    Images are padded with what was 0 before the normalisation: black. Without a `digest` of what was read, that of the
    splits as they come in is taken: they must be the same to the last bit on every machine. `highest` is the raw value
    that is 1 in the splits; None: they are raw.

    Raises:
        ValueError: augmentation of points, or a `crop_padding` that is negative or larger than the image.
    """
    require_at_least("crop_padding", crop_padding, 0)
    inputs = splits["train"]["inputs"]
    augmented = crop_padding > 0 or flip
    if augmented and inputs.dim() != 4:
        raise ValueError(
            f"dataset.crop_padding={crop_padding}, dataset.flip={flip}: only images (channels, height, width) can be "
            f"cropped and flipped, the inputs are points {tuple(inputs.shape[1:])}; set them to 0 and false"
        )
    side = min(inputs.shape[2:], default=0)
    if augmented and crop_padding > side:
        raise ValueError(f"dataset.crop_padding: got {crop_padding}, must be at most {side}, the images' smaller side")
    digest = digest or exact_digest(splits)
    black = torch.zeros_like(inputs[:1, :, :1, :1]) if augmented else None
    scaling = fit_scaling(inputs) if normalize else None
    if scaling is not None:
        splits = {name: {**split, "inputs": scaling(split["inputs"])} for name, split in splits.items()}
        black = None if black is None else scaling(black)
    augmentation = None if black is None else CropAndFlip(crop_padding, flip, tuple(black.flatten().tolist()))
    preprocessing = {"inputs": Preprocessing(highest, scaling)}
    offers = offers_of(splits["train"], class_names, scaling)
    if augmented:
        offers["is_augmented"] = True
    if highest is not None:
        offers["num_levels"] = int(highest) + 1
    return Dataset(splits, offers, augmentation, digest, preprocessing)


def offers_of(train: Batch, class_names: tuple[str, ...] | None, scaling: Scaling | None = None) -> dict[str, Any]:
    """What every dataset of images or points offers; the counts are those of the training split."""
    offers: dict[str, Any] = {"input_shape": tuple(train["inputs"].shape[1:]), "scaling": scaling}
    if class_names is not None:
        counts = train["targets"].bincount(minlength=len(class_names))
        offers |= {"class_names": class_names, "class_counts": tuple(counts.tolist())}
    return offers


def assemble_official(
    train: Batch,
    test: Batch,
    class_names: tuple[str, ...],
    split_seed: int,
    val_fraction: float,
    crop_padding: int,
    flip: bool,
    normalize: bool,
) -> Dataset:
    """Build a dataset of uint8 images that come with a test split; the validation split is cut from `train`.

    Raises:
        ValueError: a key is out of range.
    """
    splits = {**stratified_splits(train, {"val": val_fraction}, split_seed), "test": test}
    digest = exact_digest(splits)
    splits = {name: {**split, "inputs": split["inputs"].float().div_(EIGHT_BITS)} for name, split in splits.items()}
    return assemble(splits, class_names, crop_padding, flip, normalize, digest, EIGHT_BITS)
