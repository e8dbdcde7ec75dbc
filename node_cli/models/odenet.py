"""The ODE-Net of Chen et al. 2018 for images."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from node_cli.models.ode_stack import ZeroChannels, ode_stack
from node_cli.models.stem import build_stem, group_norm, pooled_head
from node_cli.models.time_layers import TimeConv2d
from node_cli.ode.base import Solver
from node_cli.ode.gradients import Gradient


class ConvField(nn.Module):
    """Vector field of images: norm, relu, conv with time, norm, relu, conv with time, norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = TimeConv2d(channels, channels)
        self.norm2 = group_norm(channels)
        self.conv2 = TimeConv2d(channels, channels)
        self.norm3 = group_norm(channels)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt at 0-dim `t`, of the shape of `y (batch, channels, h, w)`."""
        out = self.conv1(t, F.relu(self.norm1(y), inplace=True))
        out = self.conv2(t, F.relu(self.norm2(out), inplace=True))
        dy: Tensor = self.norm3(out)
        return dy


class OdeNet(nn.Module):
    """Stem, ODE-solve blocks, pooled head: images `(batch, c, h, w)` -> logits `(batch, num_outputs)`.

    With `width=64`, one block and the conv stem: the network of torchdiffeq's `examples/odenet_mnist.py`. A
    `vector_field` of your own is called with the channels of the state, once for each block; None: `ConvField`.

    Raises:
        ValueError: when a key is out of range, or the inputs are no images.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_outputs: int,
        solver: Solver,
        gradient: Gradient,
        vector_field: Callable[[int], nn.Module] | None = None,
        width: int,
        num_blocks: int,
        stem: str,
        num_downsamplings: int | str,
        augment_dim: int,
        t0: float,
        t1: float,
        learn_times: bool,
    ) -> None:
        super().__init__()
        channels = width + augment_dim
        self.stem = build_stem(stem, input_shape, width=width, num_downsamplings=num_downsamplings)
        self.augment = ZeroChannels(augment_dim)
        self.blocks = ode_stack(
            lambda: (vector_field or ConvField)(channels),
            solver,
            gradient,
            num_blocks=num_blocks,
            channels=channels,
            t0=t0,
            t1=t1,
            learn_times=learn_times,
        )
        self.head = pooled_head(channels, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.blocks(self.augment(self.stem(images))))
        return logits
