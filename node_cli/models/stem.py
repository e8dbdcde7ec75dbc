"""What the image models share: the downsampling stem, the pooled linear head, the residual block."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from node_cli.models.requirements import choose, require_images
from node_cli.ode.checks import require_at_least


def group_norm(channels: int) -> nn.GroupNorm:
    """As many groups as 32 allows: torchdiffeq's example at 64 channels, and a valid number at any other."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


class ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016): norm, relu, conv, norm, relu, conv, added to its input.

    `(batch, width, h, w)` -> the same, or half the side at stride 2, where the shortcut is a 1x1 convolution.
    """

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.norm1 = group_norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.norm2 = group_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(width, width, 1, stride, bias=False) if stride > 1 else None

    def forward(self, y: Tensor) -> Tensor:
        """The residual added to `y`, or to its shortcut."""
        activated = F.relu(self.norm1(y), inplace=True)
        shortcut = y if self.shortcut is None else self.shortcut(activated)
        out: Tensor = self.conv2(F.relu(self.norm2(self.conv1(activated)), inplace=True))
        return out + shortcut


def build_stem(stem: str, input_shape: tuple[int, ...], *, width: int, num_downsamplings: int | str) -> nn.Sequential:
    """A 3x3 convolution without padding, then the side is halved `num_downsamplings` times.

    `(batch, *input_shape)` -> `(batch, width, h, w)`. `auto` halves until the shorter side is 7 or less, at least once.

    Raises:
        ValueError: for points, an unknown stem, a width below 1, or more downsamplings than the side allows.
    """
    channels, height, row_width = require_images(input_shape)
    require_at_least("width", width, 1)
    downsampling = choose("stem", stem, {"conv": _conv_downsampling, "residual": _residual_downsampling})
    repeats = _num_downsamplings(num_downsamplings, height, row_width)
    return nn.Sequential(nn.Conv2d(channels, width, 3), *(downsampling(width) for _ in range(repeats)))


def pooled_head(channels: int, num_outputs: int) -> nn.Sequential:
    """Norm, relu, global average pool, linear: `(batch, channels, h, w)` -> logits `(batch, num_outputs)`."""
    return nn.Sequential(
        group_norm(channels),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, num_outputs),
    )


def _conv_downsampling(width: int) -> nn.Module:
    return nn.Sequential(group_norm(width), nn.ReLU(inplace=True), nn.Conv2d(width, width, 4, 2, padding=1))


def _residual_downsampling(width: int) -> nn.Module:
    return ResidualBlock(width, stride=2)


def _num_downsamplings(asked: int | str, height: int, row_width: int) -> int:
    bits = (min(height, row_width) - 2).bit_length()  # each halving takes one bit of the side after the 3x3 convolution
    most = bits - 2
    number = max(1, bits - 3) if asked == "auto" else asked
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"num_downsamplings must be auto or a whole number of at least 0, got {asked!r}")
    if most < 0:
        raise ValueError(f"model needs images of at least 4x4 pixels, the dataset has {height}x{row_width}")
    if number > most:
        raise ValueError(
            f"num_downsamplings must be at most {most} for images of {height}x{row_width} pixels "
            f"(2x2 must remain), got {asked}"
        )
    return number
