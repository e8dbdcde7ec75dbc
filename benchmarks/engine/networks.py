"""The MNIST ODE-Net, ours and that of torchdiffeq's `examples/odenet_mnist.py`, with the same weights."""

from __future__ import annotations

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.engine.peers import Build
from node_cli.config import config_dir
from node_cli.models.ode_block import OdeBlock, ode_blocks

TOLERANCE = 1e-3
FIELD = "blocks.0.vector_field."  # where our network has its vector field


class ConcatField(nn.Module):
    """The example's vector field: norm, relu, conv, norm, relu, conv, norm; the time is a channel of each conv.

    It counts its evaluations, as the example does.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(min(32, channels), channels) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(channels + 1, channels, 3, padding=1) for _ in range(2))
        self.nfe = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt at 0-dim `t`, of the shape of `y (batch, channels, h, w)`."""
        self.nfe += 1
        for norm, conv in zip(self.norms[:2], self.convs, strict=True):
            y = F.relu(norm(y), inplace=True)
            y = conv(torch.cat([torch.ones_like(y[:, :1]) * t, y], 1))
        return self.norms[2](y)


class PeerNet(nn.Module):
    """Our stem and head (the example's layers) around a peer's solve of the example's vector field."""

    def __init__(self, ours: nn.Module, build: Build) -> None:
        super().__init__()
        self.stem, self.head = ours.stem, ours.head
        self.field = ConcatField(64).to(next(ours.parameters()).device)
        copy_field(block_of(ours).vector_field, self.field)
        self.solve = build(self.field, TOLERANCE)
        self.nfe_forward = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        self.field.nfe = 0
        y0 = self.stem(images)
        y1 = self.solve(y0, torch.tensor([0.0, 1.0], device=y0.device))[-1]
        self.nfe_forward = self.field.nfe
        return self.head(y1)

    def gradients(self) -> dict[str, Tensor]:
        """Those of the weights, by our network's names."""
        grads = {name: p.grad for name, p in self.named_parameters() if name.startswith(("stem.", "head."))}
        for i, norm in enumerate(self.field.norms, 1):
            grads |= {f"{FIELD}norm{i}.weight": norm.weight.grad, f"{FIELD}norm{i}.bias": norm.bias.grad}
        for i, conv in enumerate(self.field.convs, 1):
            time_weight, weight = conv.weight.grad.split([1, conv.out_channels], dim=1)
            grads |= {f"{FIELD}conv{i}.time_weight": time_weight, f"{FIELD}conv{i}.weight": weight}
            grads[f"{FIELD}conv{i}.bias"] = conv.bias.grad
        return grads


def build_ours(*overrides: str) -> nn.Module:
    """The ODE-Net of `dataset=mnist model=odenet` with overrides for node-train; the same weights each time."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", list(overrides))
    torch.manual_seed(0)
    parts = {group: instantiate(cfg[group], _convert_="all") for group in ("solver", "gradient")}
    model: nn.Module = instantiate(cfg.model)(input_shape=(1, 28, 28), num_outputs=10, **parts)
    return model


def block_of(ours: nn.Module) -> OdeBlock:
    """The one ODE block of our network."""
    (block,) = ode_blocks(ours).values()
    return block


def copy_field(field: nn.Module, peer: ConcatField) -> None:
    """Gives the peer the weights of our vector field: its first input channel is our time weight."""
    with torch.no_grad():
        for theirs, mine in zip(peer.convs, (field.conv1, field.conv2), strict=True):
            theirs.weight.copy_(torch.cat([mine.time_weight, mine.weight], 1))
            theirs.bias.copy_(mine.bias)
