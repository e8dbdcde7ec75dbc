"""One evaluation of the vector field, forward and backward: time concatenated as a channel, or added as a bias map.

Both in turn (A B A B ...) on one thread, with the same weights, at the MNIST ODE-Net's size. Prints the medians and
their ratio:

    python benchmarks/time_channel.py [rounds]
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from node_cli.models.odenet import ConvField
from node_cli.models.time_layers import TimeConv2d

BATCH, CHANNELS, SIDE = 128, 64, 6


class ConcatenatedConv2d(nn.Module):
    """What `TimeConv2d` stands for: a convolution over `y` with a plane of `t` in front."""

    def __init__(self, layer: TimeConv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([layer.time_weight, layer.weight], dim=1).detach())
        self.bias = nn.Parameter(layer.bias.detach().clone())

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The convolution, on a copy of `y`."""
        plane = torch.ones_like(y[:, :1]) * t
        return F.conv2d(torch.cat([plane, y], dim=1), self.weight, self.bias, padding=1)


def concatenated_field(field: ConvField) -> ConvField:
    """A vector field with the weights of `field` whose convolutions concatenate."""
    other = ConvField(CHANNELS)
    other.load_state_dict(field.state_dict())
    other.conv1, other.conv2 = ConcatenatedConv2d(field.conv1), ConcatenatedConv2d(field.conv2)
    return other


def seconds(field: nn.Module, t: Tensor, y: Tensor, cotangent: Tensor) -> float:
    """The time of one evaluation and its backward pass."""
    start = time.perf_counter()
    torch.autograd.grad(field(t, y), (y, *field.parameters()), cotangent)
    return time.perf_counter() - start


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bias_map = ConvField(CHANNELS)
    concatenated = concatenated_field(bias_map)
    t, y = torch.tensor(0.5), torch.randn(BATCH, CHANNELS, SIDE, SIDE, requires_grad=True)
    cotangent = torch.randn_like(y)
    torch.testing.assert_close(bias_map(t, y), concatenated(t, y), rtol=1e-4, atol=1e-4)
    pairs = [[seconds(field, t, y, cotangent) for field in (concatenated, bias_map)] for _ in range(rounds + 3)][3:]
    a, b = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    sys.stdout.write(f"concatenated {a:.2f} ms   bias map {b:.2f} ms   ratio {b / a:.3f}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
