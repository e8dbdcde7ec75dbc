"""What every latent model of series can be asked, and the distribution that it has of a latent state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from node_cli.batch import Batch


class Posterior(NamedTuple):
    """A normal distribution `(n, L)` of the latent state of each series, without correlations."""

    mean: Tensor
    std: Tensor

    def draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        """`(count, n, L)`, with a graph; None: by the random numbers of torch itself, on the device."""
        return self.mean + self.std * normal(self.mean, (count, *self.mean.shape), generator)

    def kl(self) -> Tensor:
        """The Kullback-Leibler divergence `(n,)` from the prior, the standard normal distribution, in nats."""
        return 0.5 * (self.mean.square() + self.std.square() - 1 - 2 * self.std.log()).sum(1)

    def log_weights(self, latent: Tensor) -> Tensor:
        """The log-density of latent states `(..., n, L)` under the prior less that under the posterior `(..., n)`."""
        z = (latent - self.mean) / self.std
        return (0.5 * (z.square() - latent.square()) + self.std.log()).sum(-1)


class LatentModel(nn.Module, ABC):
    """Explains each series by a latent state at its first time, which has a standard normal prior.

    Attributes:
        latent_dim: L.
        learns_rates: it has a rate at which each channel is observed.
        unused: its keys that have no effect as it was built, each with the reason and what to do.
    """

    latent_dim: int
    learns_rates: bool
    unused: Mapping[str, str] = {}

    @abstractmethod
    def posterior(self, batch: Batch) -> Posterior:
        """What the observations that `mask` shows say of the latent states."""

    @abstractmethod
    def paths(self, latent: Tensor, batch: Batch) -> Tensor:
        """Latent states `(K, n, T, L)` at all times of a batch, from K of them `(K, n, L)` at its first one."""

    @abstractmethod
    def values(self, paths: Tensor) -> Tensor:
        """The scaled values `(..., C)` of latent states `(..., L)`."""

    @abstractmethod
    def log_rates(self, paths: Tensor) -> Tensor:
        """How often each channel is observed in a unit of scaled time, its logarithm `(..., C)`."""


def normal(like: Tensor, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers, of the dtype and on the device of `like`; `generator` is on the CPU."""
    device = like.device if generator is None else None
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(like)
