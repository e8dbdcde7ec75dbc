"""Random changes of image batches, on whole tensors at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from node_cli.batch import Batch


@dataclass(frozen=True)
class CropAndFlip:
    """Shift each image by up to `padding` pixels each way, then mirror every second one (left to right) if `flip`.

    Images are the `inputs` of a batch, `(batch, channels, height, width)`; what a shift uncovers gets `fill`, one value
    a channel.
    """

    padding: int
    flip: bool
    fill: tuple[float, ...]

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with changed copies of its images, of the same shape."""
        images = batch["inputs"]
        if self.padding:
            images = random_crop(images, self.padding, self.fill, generator)
        if self.flip:
            images = random_flip(images, generator)
        return {**batch, "inputs": images}


def random_crop(inputs: Tensor, padding: int, fill: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """Pad the images by `padding` on all sides and cut a window of the old size out of each, at a random place."""
    batch, channels, height, width = inputs.shape
    top, left = torch.randint(2 * padding + 1, (2, batch), generator=generator).to(inputs.device)
    padded = inputs.new_tensor(fill).view(1, channels, 1, 1)
    padded = padded.repeat(batch, 1, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = inputs
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(batch, device=inputs.device), :, top, left]


def random_flip(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    mirrored = torch.rand(len(inputs), generator=generator).to(inputs.device) < 0.5
    return torch.where(mirrored.view(-1, 1, 1, 1), inputs.flip(3), inputs)
