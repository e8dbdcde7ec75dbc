"""One training step of the MNIST ODE-Net, ours against torchdiffeq's example network, in turn A B A B.

    python benchmarks/training_step.py [rounds]

Same weights, data and tolerances (batch 128, dopri5 at rtol = atol = 1e-3, float32, two threads); medians and ratios.
The peer is the network of torchdiffeq's `examples/odenet_mnist.py`, which concatenates the time as a channel, under
`odeint` and `odeint_adjoint` as the example calls them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torchdiffeq
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn import functional as F

from node_cli.config import config_dir
from node_cli.models.ode_block import ode_blocks

BATCH = 128


class ConcatField(nn.Module):
    """The example's vector field: norm, relu, conv, norm, relu, conv, norm; the time is a channel of each conv."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(min(32, channels), channels) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(channels + 1, channels, 3, padding=1) for _ in range(2))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        for norm, conv in zip(self.norms[:2], self.convs, strict=True):
            y = F.relu(norm(y))
            y = conv(torch.cat([torch.ones_like(y[:, :1]) * t, y], 1))
        return self.norms[2](y)


class PeerNet(nn.Module):
    """Our stem and head (the example's layers) around torchdiffeq and the example's vector field."""

    def __init__(self, ours: nn.Module, odeint: Callable[..., Tensor]) -> None:
        super().__init__()
        self.stem, self.head, self.odeint = ours.stem, ours.head, odeint
        self.field = ConcatField(64)
        self.ts = torch.tensor([0.0, 1.0])

    def forward(self, images: Tensor) -> Tensor:
        ys = self.odeint(self.field, self.stem(images), self.ts, rtol=1e-3, atol=1e-3, method="dopri5")
        return self.head(ys[1])


def build_ours(gradient: str) -> nn.Module:
    """The ODE-Net of `dataset=mnist model=odenet`."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", [f"gradient={gradient}"])
    torch.manual_seed(0)
    parts = {"solver": instantiate(cfg.solver), "gradient": instantiate(cfg.gradient)}
    model: nn.Module = instantiate(cfg.model)(input_shape=(1, 28, 28), num_outputs=10, **parts)
    return model


def copy_field(ours: nn.Module, peer: ConcatField) -> None:
    """Gives the peer the weights of our vector field: its first input channel is our time weight."""
    (block,) = ode_blocks(ours).values()
    own = [module for module in block.vector_field.modules() if len(list(module.children())) == 0]
    convs = [module for module in own if not isinstance(module, nn.GroupNorm) and list(module.parameters())]
    with torch.no_grad():
        for theirs, mine in zip(peer.convs, convs, strict=True):
            theirs.weight.copy_(torch.cat([mine.time_weight, mine.weight], 1))
            theirs.bias.copy_(mine.bias)


def step(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    model.zero_grad()
    started = time.perf_counter()
    F.cross_entropy(model(images), labels).backward()
    return time.perf_counter() - started


def main() -> None:
    """Prints a row for each gradient."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    torch.set_num_threads(2)
    images, labels = torch.randn(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    print("| gradient | torchdiffeq's example, s | node-train, s | ratio |\n|---|---|---|---|")
    for gradient, odeint in (("direct", torchdiffeq.odeint), ("adjoint", torchdiffeq.odeint_adjoint)):
        ours = build_ours(gradient)
        peer = PeerNet(ours, odeint)
        copy_field(ours, peer.field)
        assert torch.allclose(ours(images), peer(images), atol=1e-3), "the two networks differ"
        times = [(step(peer, images, labels), step(ours, images, labels)) for _ in range(rounds + 2)][2:]
        theirs, mine = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(a / b for a, b in times)
        print(f"| {gradient} | {theirs:.3f} | {mine:.3f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
