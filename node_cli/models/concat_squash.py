"""A vector field of points for the slot of an ODE-Net: layers that the time gates."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from node_cli.ode.checks import require_at_least


class ConcatSquash(nn.Module):
    """Layers `(W y + b) * sigmoid(t a + c) + t d` with tanh between them: `(batch, channels)` -> the same.

    Source: Grathwohl et al., FFJORD, ICLR 2019 (`ConcatSquashLinear` of its code).

    Raises:
        ValueError: when a key is out of range, or the inputs are no points.
    """

    def __init__(self, *, channels: int, input_shape: tuple[int, ...], width: int, num_hidden_layers: int) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise ValueError(f"points (d,) are needed, the dataset has samples of shape {input_shape}: leave it out")
        require_at_least("width", width, 1)
        require_at_least("num_hidden_layers", num_hidden_layers, 1)
        sizes = [channels, *[width] * num_hidden_layers, channels]
        self.layers = nn.ModuleList(_Layer(*pair) for pair in pairwise(sizes))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt at 0-dim `t`, of the shape of `y`."""
        for number, layer in enumerate(self.layers):
            y = layer(t, torch.tanh(y) if number else y)
        return y


class _Layer(nn.Module):
    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.gate = nn.Linear(1, out_features)
        self.shift = nn.Linear(1, out_features, bias=False)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        time = t.to(y.dtype).reshape(-1, 1)
        dy: Tensor = self.linear(y) * torch.sigmoid(self.gate(time)) + self.shift(time)
        return dy
