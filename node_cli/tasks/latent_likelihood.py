"""How probable observations are, given what a model makes of some samples of its latent state."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.latent import LatentModel
from node_cli.series import MASK, TARGET, TIMES, VALUES, SeriesModel, visible

BISECTIONS = 16  # of the range of a mixture: a quantile is found to 1 / 65,536 of it
TAIL = 5.0  # std of the noise beyond which no quantile is looked for


class Explained(NamedTuple):
    """A batch of n series as K samples of the latent state have it; a model without one has a single sample.

    Attributes:
        means: `(K, n, T, C)`, scaled, without noise.
        std: `(C,)` of the noise, scaled.
        log_rates: `(K, n, T, C)`, of how often something is observed; None: not learned.
        kl: `(n,)`, of the posterior from the prior, in nats.
        log_weights: `(K, n)`, the log-density of each sample under the prior less that under the posterior.
    """

    means: Tensor
    std: Tensor
    log_rates: Tensor | None
    kl: Tensor
    log_weights: Tensor

    def log_likelihood(self, batch: Batch, where: Tensor) -> Tensor:
        """Of the values at the places `where` `(n, T, C)`, and of there being just these, `(K, n)`."""
        values = torch.where(where, batch[VALUES], 0.0)
        z = torch.where(where, values - self.means, 0.0) / self.std
        log_densities = -0.5 * z.square() - where * (self.std.log() + 0.5 * math.log(2 * math.pi))
        found: Tensor = log_densities.sum((2, 3))
        return found if self.log_rates is None else found + _of_a_poisson_process(self.log_rates, batch, where)

    def cdf(self, values: Tensor) -> Tensor:
        """The probability `(n, T, C)` that an observation is at most `values` `(n, T, C)`."""
        probabilities: Tensor = torch.special.ndtr((values - self.means) / self.std)
        return probabilities.mean(0)

    def quantile(self, probability: float) -> Tensor:
        """The value `(n, T, C)` that an observation is at most with this probability, of the mixture of all samples."""
        low, high = self.means.amin(0) - TAIL * self.std, self.means.amax(0) + TAIL * self.std
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            is_below = self.cdf(middle) < probability
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return (low + high) / 2


def explained(
    model: LatentModel | SeriesModel, noise: Tensor, batch: Batch, count: int, generator: torch.Generator | None
) -> Explained:
    """The batch by `count` samples of the posterior, given what `mask` shows; `noise` `(C,)` is the log of its std."""
    shown, std = visible(batch), noise.exp()
    if isinstance(model, SeriesModel):
        means = model(shown)[None]
        nothing = means.new_zeros(1, len(batch[TIMES]))
        return Explained(means, std, None, nothing[0], nothing)
    posterior = model.posterior(shown)
    latent = posterior.draw(count, generator)
    paths = model.paths(latent, shown)
    rates = model.log_rates(paths) if model.learns_rates else None
    return Explained(model.values(paths), std, rates, posterior.kl(), posterior.log_weights(latent))


def explained_places(model: LatentModel | SeriesModel, batch: Batch) -> Tensor:
    """What the loss is made of `(n, T, C)`: all that was observed, shown or not.

    Models without a latent state are not asked for the first value of a channel that they see: many start there.
    """
    shown, observed = batch[MASK], batch[MASK] | batch[TARGET]
    if isinstance(model, LatentModel):
        return observed
    return observed & ~(shown & (shown.cumsum(1) == 1))


def log_mean_exp(log_values: Tensor) -> Tensor:
    """Over dimension 0."""
    return log_values.logsumexp(0) - math.log(len(log_values))


def _of_a_poisson_process(log_rates: Tensor, batch: Batch, where: Tensor) -> Tensor:
    """The log-likelihood `(K, n)` of the times of observations, from the first time to that of the last one.

    The rate between two times of the batch is the mean of both.
    """
    times, rates = batch[TIMES], log_rates.exp()
    last = times.masked_fill(~where.any(2), -math.inf).amax(1, keepdim=True)
    lengths = (times.diff(dim=1) * (times[:, 1:] <= last)).to(rates.dtype)[..., None]
    expected = (lengths * (rates[:, :, 1:] + rates[:, :, :-1]) / 2).sum((2, 3))
    return torch.where(where, log_rates, 0.0).sum((2, 3)) - expected
