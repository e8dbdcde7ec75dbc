"""Small squares of two photographs that come with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.datasets.assembling import assemble
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.digest import exact_digest
from node_cli.datasets.npz_file import read_arrays
from node_cli.ode.checks import require_at_least

PHOTOGRAPHS = Path(__file__).with_name("files") / "photographs.npz"
NAMES = ("china", "flower")
SIDE = 8  # of a patch
BLOCK, GUARD = 32, 8  # sides of a block of one split, and of the band around it that no patch reaches
PERIOD, VAL, TEST = 10, (0,), (3, 7)  # blocks of a photograph in turn: which go where
LEVELS = 256.0


def patches(stride: int, data_seed: int, normalize: bool) -> Dataset:
    """Patches of 8 by 8 grey pixels of two photographs as points `(63,)`, without classes.

    As of BSDS300 in the literature: uniform noise makes the whole numbers continuous, they are divided by 256, the
    mean of a patch is subtracted, and the last pixel, which then follows from the others, is dropped. Splits are
    interleaved blocks of 32 by 32 pixels with 8 pixels between them, so that no patch of one split overlaps, or
    touches, a patch of another.

    Args:
        stride: pixels between the starts of two patches of a block.
        data_seed: fixes the noise.
        normalize: to mean 0 and std 1 for each pixel, measured on train.

    Source: `china.jpg` by danielbuechele and `flower.jpg` by vultilion (Flickr), CC BY 2.0, both as in scikit-learn,
    here grey and half as large. The recipe: Papamakarios et al. 2017, arXiv 1705.07057.

    Raises:
        ValueError: a key is out of range.
    """
    require_at_least("stride", stride, 1)
    found: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}
    for image in read_arrays(PHOTOGRAPHS, NAMES).values():
        for number, block in enumerate(_blocks(image)):
            place = number % PERIOD
            split = "val" if place in VAL else "test" if place in TEST else "train"
            found[split].append(_patches_of(block, stride))
    raw = {name: torch.cat(parts) for name, parts in found.items()}
    generator = torch.Generator().manual_seed(data_seed)
    splits: dict[str, Batch] = {name: {"inputs": _points(pixels, generator)} for name, pixels in raw.items()}
    digest = exact_digest({name: {"inputs": pixels} for name, pixels in raw.items()})
    return assemble(splits, None, 0, False, normalize, digest)


def _blocks(image: np.ndarray) -> list[Tensor]:
    """The blocks of an image, row by row."""
    pixels, step = torch.from_numpy(image), BLOCK + GUARD
    starts = [range(0, side - BLOCK + 1, step) for side in pixels.shape]
    return [pixels[top : top + BLOCK, left : left + BLOCK] for top in starts[0] for left in starts[1]]


def _patches_of(block: Tensor, stride: int) -> Tensor:
    """`(patches, 64)`, uint8."""
    return block.unfold(0, SIDE, stride).unfold(1, SIDE, stride).reshape(-1, SIDE * SIDE)


def _points(pixels: Tensor, generator: torch.Generator) -> Tensor:
    values = (pixels + torch.rand(pixels.shape, generator=generator, dtype=torch.float64)) / LEVELS
    return (values - values.mean(1, keepdim=True))[:, :-1].float()
