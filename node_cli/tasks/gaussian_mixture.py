"""Mixtures of Gaussians with full covariance matrices, fitted by expectation and maximisation."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FLOORS = (1e-4, 1e-2, 1e-1)  # added to every variance, in units of the mean variance of the data
FEW, MOST = 4, 64  # components that floors are compared with, and that there can be
MOST_PRODUCTS = 1e9  # of an iteration: a fraction of a second
CLOSE = 0.1  # nats a dimension: floors that are so much worse then are left alone
MAX_ITERATIONS = 30
TOLERANCE = 3e-4  # nats of the training data, a dimension
PATIENCE = 3  # iterations that may be worse on validation than the best of them
LEAST_PART = 1e-9  # of a point in a component; a smaller one does not change its covariance
EMPTY = 1e-10  # of a component that has lost all its samples


class GaussianMixture(NamedTuple):
    """Components: log-weights `(k,)`, means `(k, d)` and lower Cholesky factors of covariance matrices `(k, d, d)`."""

    log_weights: Tensor
    means: Tensor
    factors: Tensor

    def log_prob(self, points: Tensor) -> Tensor:
        """Log-densities `(n,)`, in nats, of points `(n, d)`."""
        return self.joint(points).logsumexp(1)

    def joint(self, points: Tensor) -> Tensor:
        """Log-densities `(n, k)` of a point together with its component."""
        dim = points.shape[1]
        inverses = torch.linalg.solve_triangular(self.factors, torch.eye(dim, dtype=points.dtype), upper=False)
        heights = self.log_weights - dim / 2 * math.log(2 * math.pi) + inverses.diagonal(dim1=1, dim2=2).log().sum(1)
        squares = [
            ((points - mean) @ inverse.T).square().sum(1) for mean, inverse in zip(self.means, inverses, strict=True)
        ]
        joint: Tensor = heights - 0.5 * torch.stack(squares, 1)
        return joint

    @classmethod
    def single(cls, train: Tensor) -> GaussianMixture:
        """One Gaussian with the mean and the covariance of these points, and a small floor."""
        return cls.of(train, torch.ones(len(train), 1, dtype=train.dtype), FLOORS[0])

    @classmethod
    def of(cls, points: Tensor, parts: Tensor, floor: float) -> GaussianMixture:
        """The maximisation: of points of which each component has the parts `(n, k)`."""
        counts = parts.sum(0) + EMPTY
        means = (parts.T @ points) / counts[:, None]
        scale = points.var(0, correction=0).mean()
        ridge = floor * torch.where(scale > 0, scale, 1) * torch.eye(points.shape[1], dtype=points.dtype)
        covariances = []
        for part, mean, count in zip(parts.T, means, counts, strict=True):
            members = part > LEAST_PART
            centred = points[members] - mean
            covariances.append((part[members, None] * centred).T @ centred / count + ridge)
        return cls((counts / counts.sum()).log(), means, torch.linalg.cholesky(torch.stack(covariances)))


def chosen_mixture(train: Tensor, val: Tensor) -> GaussianMixture:
    """The mixture that is best on `val`: floor of the variances, number of components, iterations.

    The number of components is doubled as long as that helps and does not take too long.

    Args:
        train: `(n, d)` in float64.
        val: likewise.
    """
    few = {floor: _fitted(train, val, FEW, floor) for floor in FLOORS}
    limit = min(loss for _, loss in few.values()) + CLOSE * train.shape[1]
    found = [_best_of_floor(train, val, floor, pair) for floor, pair in few.items() if pair[1] <= limit]
    return min(found, key=lambda pair: pair[1])[0]


def _best_of_floor(
    train: Tensor, val: Tensor, floor: float, few: tuple[GaussianMixture, float]
) -> tuple[GaussianMixture, float]:
    best, count, since = _fitted(train, val, 1, floor), 2, 0
    most = min(MOST, MOST_PRODUCTS / (len(train) * train.shape[1] ** 2))
    while count <= most and since < 2:  # one number of components may be worse by chance
        further = few if count == FEW else _fitted(train, val, count, floor)
        since = 0 if further[1] < best[1] else since + 1
        best, count = min(best, further, key=lambda pair: pair[1]), 2 * count
    return best


def _fitted(train: Tensor, val: Tensor, count: int, floor: float) -> tuple[GaussianMixture, float]:
    """The best on `val` of the iterations, and its loss."""
    model = best = GaussianMixture.of(train, _first_parts(train, count), floor)
    lowest, last, since = math.inf, math.inf, 0
    for _ in range(MAX_ITERATIONS):
        joint = model.joint(train)
        loss = -model.log_prob(val).mean().item()
        since += 1
        if loss < lowest:
            best, lowest, since = model, loss, 0
        now = -joint.logsumexp(1).mean().item()
        if not last - now > TOLERANCE * train.shape[1] or since == PATIENCE:
            break
        last = now
        model = GaussianMixture.of(train, joint.softmax(1), floor)
    return best, lowest


def _first_parts(points: Tensor, count: int) -> Tensor:
    """Each point belongs to the nearest of some that were drawn far apart (k-means++)."""
    generator = torch.Generator().manual_seed(0)
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    distances = (points - centres).square().sum(1)
    nearest = torch.zeros(len(points), dtype=torch.long)
    for number in range(1, count):
        if not distances.sum() > 0:
            break  # fewer different points than components
        centre = points[torch.multinomial(distances, 1, generator=generator)]
        further = (points - centre).square().sum(1)
        nearest = torch.where(further < distances, number, nearest)
        distances = torch.minimum(distances, further)
    return torch.nn.functional.one_hot(nearest, count).to(points.dtype)
