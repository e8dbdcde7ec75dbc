"""The residual network that an ODE-Net is compared with."""

from __future__ import annotations

from torch import Tensor, nn

from node_cli.models.stem import ResidualBlock, build_stem, pooled_head
from node_cli.ode.checks import require_at_least


class ResNet(nn.Module):
    """The ODE-Net's stem and head around residual blocks: images `(batch, c, h, w)` -> logits `(batch, num_outputs)`.

    Without blocks (`num_blocks=0`) it is the control that shows what a block adds.

    Raises:
        ValueError: when a key is out of range, or the inputs are no images.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_outputs: int,
        width: int,
        num_blocks: int,
        stem: str,
        num_downsamplings: int | str,
    ) -> None:
        super().__init__()
        require_at_least("num_blocks", num_blocks, 0)
        self.stem = build_stem(stem, input_shape, width=width, num_downsamplings=num_downsamplings)
        self.blocks = nn.Sequential(*(ResidualBlock(width, stride=1) for _ in range(num_blocks)))
        self.head = pooled_head(width, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.blocks(self.stem(images)))
        return logits
