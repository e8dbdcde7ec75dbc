"""Layers whose input is the state and the time, without the cost of concatenating the two.

A layer over `[t, y]` is linear in both: what it does to `t` is `t` times a constant, added like a bias.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class TimeConv2d(nn.Module):
    """A 3x3 convolution, padding 1, over `y` with one more channel, in front, that holds `t` everywhere.

    `t` 0-dim, `y (batch, in_channels, h, w)` -> `(batch, out_channels, h, w)`. Initialised as the `nn.Conv2d` with
    `in_channels + 1` channels is. Source of the layer: Chen et al. 2018 (`ConcatConv2d` of torchdiffeq's example).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        concatenated = nn.Conv2d(in_channels + 1, out_channels, 3)
        assert concatenated.bias is not None
        time_weight, weight = concatenated.weight.detach().split([1, in_channels], dim=1)
        self.weight = nn.Parameter(weight.clone())  # (out_channels, in_channels, 3, 3)
        self.time_weight = nn.Parameter(time_weight.clone())  # (out_channels, 1, 3, 3)
        self.bias = nn.Parameter(concatenated.bias.detach())  # (out_channels,)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The convolution of `y` plus a bias map, which is no constant: at the border less of the plane is seen."""
        ones = y.new_ones(1, 1, *y.shape[2:])
        bias_map = self.bias[:, None, None] + t * F.conv2d(ones, self.time_weight, padding=1)
        # In place: one large buffer less, and under autocast the result keeps the convolution's dtype.
        return F.conv2d(y, self.weight, padding=1).add_(bias_map)


class TimeLinear(nn.Module):
    """A linear layer over `y` with one more feature, in front, that holds `t`.

    `t` 0-dim, `y (batch, in_features)` -> `(batch, out_features)`. Initialised as the `nn.Linear` with
    `in_features + 1` features is.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        concatenated = nn.Linear(in_features + 1, out_features)
        time_weight, weight = concatenated.weight.detach().split([1, in_features], dim=1)
        self.weight = nn.Parameter(weight.clone())  # (out_features, in_features)
        self.time_weight = nn.Parameter(time_weight[:, 0].clone())  # (out_features,)
        self.bias = nn.Parameter(concatenated.bias.detach())  # (out_features,)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """`W y + t w_t + b`; `t` may be `(batch, 1)`, one for each sample."""
        return F.linear(y, self.weight) + (self.bias + t * self.time_weight)
