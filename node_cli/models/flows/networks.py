"""Vector fields of flows: networks that map a time and a state, of points or images, to a slope."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from node_cli.ode.checks import require_at_least

NUM_WAVES = 4  # of the time: sines and cosines of so many frequencies, in octaves from half a wave in the interval


class Embedding(nn.Module):
    """What a layer is told of time and class: `(1 or n, width)` for `t` 0-dim or one for each sample."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.of_time = nn.Sequential(nn.Linear(1 + 2 * NUM_WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.of_class = nn.Embedding(num_classes, width) if num_classes else None

    def forward(self, t: Tensor, y: Tensor, labels: Tensor | None) -> Tensor:
        """In the dtype of `y`."""
        time = t.to(y.dtype).reshape(-1, 1)
        waves = torch.cat([math.pi * 2**k * time for k in range(NUM_WAVES)], dim=1)
        found: Tensor = self.of_time(torch.cat([time, waves.sin(), waves.cos()], dim=1))
        if self.of_class is None:
            return found
        assert labels is not None
        told: Tensor = found + self.of_class(labels)
        return told


class ResidualMlp(nn.Module):
    """Residual layers over all numbers of a sample in a row: `(n, ...)` -> the same."""

    def __init__(self, shape: tuple[int, ...], width: int, num_layers: int, num_classes: int) -> None:
        super().__init__()
        features = math.prod(shape)
        self.embedding = Embedding(width, num_classes)
        self.first = nn.Linear(features, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))
        self.back = nn.ModuleList(nn.Linear(width, width) for _ in range(num_layers))
        self.last = nn.Linear(width, features)

    def forward(self, t: Tensor, y: Tensor, labels: Tensor | None = None) -> Tensor:
        """dy/dt at `t`, 0-dim or one for each sample."""
        told = self.embedding(t, y, labels)
        h = self.first(y.flatten(1)) + told
        for hidden, back in zip(self.hidden, self.back, strict=True):
            h = h + back(F.silu(hidden(F.silu(h)) + told))
        dy: Tensor = self.last(F.silu(h))
        return dy.view(y.shape)


class UNet(nn.Module):
    """Convolutions at the full, half and quarter size of images, there and back: `(n, c, h, w)` -> the same.

    Source of the shape: Ronneberger et al. 2015; with time in every block as in Ho et al. 2020.
    """

    def __init__(self, shape: tuple[int, ...], width: int, num_layers: int, num_classes: int) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 4:
            raise ValueError(
                f"network=unet needs images (c, h, w) of at least 4 x 4 pixels, the dataset has samples of shape "
                f"{tuple(shape)}: take model.network=mlp"
            )
        told = 4 * width
        self.embedding = Embedding(told, num_classes)
        self.first = nn.Conv2d(shape[0], width, 3, padding=1)
        self.down = nn.ModuleList(_stage(width, width, told, num_layers) for _ in range(2))
        self.middle = _stage(width, width, told, num_layers)
        self.up = nn.ModuleList(_stage(2 * width, width, told, num_layers) for _ in range(2))
        self.last = nn.Conv2d(width, shape[0], 3, padding=1)

    def forward(self, t: Tensor, y: Tensor, labels: Tensor | None = None) -> Tensor:
        """dy/dt at `t`, 0-dim or one for each sample."""
        told = self.embedding(t, y, labels)
        h, seen = self.first(y), []
        for stage in self.down:
            h = _through(stage, h, told)
            seen.append(h)
            h = F.avg_pool2d(h, 2, ceil_mode=True)
        h = _through(self.middle, h, told)
        for stage in self.up:
            there = seen.pop()
            h = F.interpolate(h, size=there.shape[2:])
            h = _through(stage, torch.cat([h, there], dim=1), told)
        dy: Tensor = self.last(F.silu(h))
        return dy


class _Norm(nn.GroupNorm):
    """In the dtype of its weights: under autocast, its gradient takes no mixture."""

    def forward(self, y: Tensor) -> Tensor:
        return super().forward(y.to(self.weight.dtype))


class _Block(nn.Module):
    """Two convolutions and a way around them; what is told of time and class comes between."""

    def __init__(self, channels: int, width: int, told: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()
        self.norms = nn.ModuleList(_Norm(math.gcd(8, each), each) for each in (channels, width))
        self.convs = nn.ModuleList(nn.Conv2d(each, width, 3, padding=1) for each in (channels, width))
        self.told = nn.Linear(told, width)

    def forward(self, y: Tensor, told: Tensor) -> Tensor:
        h = self.convs[0](F.silu(self.norms[0](y))) + self.told(F.silu(told))[:, :, None, None]
        result: Tensor = self.around(y) + self.convs[1](F.silu(self.norms[1](h)))
        return result


def _stage(channels: int, width: int, told: int, num_layers: int) -> nn.ModuleList:
    return nn.ModuleList(_Block(width if number else channels, width, told) for number in range(num_layers))


def _through(stage: nn.Module, y: Tensor, told: Tensor) -> Tensor:
    assert isinstance(stage, nn.ModuleList)
    for block in stage:
        y = block(y, told)
    return y


NETWORKS: dict[str, type[ResidualMlp] | type[UNet]] = {"mlp": ResidualMlp, "unet": UNet}


def make_network(
    network: type[ResidualMlp] | type[UNet], shape: tuple[int, ...], width: int, num_layers: int, num_classes: int
) -> nn.Module:
    """One of `NETWORKS`; raises ValueError for a size that is none."""
    require_at_least("width", width, 1)
    require_at_least("num_layers", num_layers, 1)
    return network(shape, width, num_layers, num_classes)
