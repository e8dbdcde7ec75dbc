"""The baseline with one hidden layer of Chen et al. 2018, Table 1."""

from __future__ import annotations

import math

from torch import Tensor, nn

from node_cli.ode.checks import require_at_least


class Mlp(nn.Module):
    """Flatten, linear, relu, linear: images or points `(batch, *input_shape)` -> logits `(batch, num_outputs)`.

    Raises:
        ValueError: when the width is below 1.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, width: int) -> None:
        super().__init__()
        require_at_least("width", width, 1)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(input_shape), width), nn.ReLU(), nn.Linear(width, num_outputs)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layers(inputs)
        return logits
