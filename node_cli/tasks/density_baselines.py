"""What densities that need no network give on the same split: what a model has to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from node_cli.tasks.density_space import Space
from node_cli.tasks.gaussian_mixture import GaussianMixture, chosen_mixture

LARGEST = {"gaussian": 1024, "gaussian_mixture": 128}  # dimensions; a covariance matrix of more takes too long
CHUNK = 4096  # images counted at once


def baselines(train: Tensor, val: Tensor, test: Tensor, space: Space) -> dict[str, float]:
    """Negative log-likelihood of the test split, in nats a sample, of what was fitted on train and chosen on val.

    `gaussian` is one with a full covariance matrix, `gaussian_mixture` a mixture of them. Of whole numbers there are as
    well `categorical`, a distribution for each pixel, and both Gaussians once more on the logits that a flow sees
    (`logit_gaussian`, `logit_gaussian_mixture`). All are bounds on the same likelihood. What has too many dimensions is
    left out.

    Args:
        train: `(n, d...)` as the dataset gives them.
        val: likewise.
        test: likewise.
        space: between those and the user's units.
    """
    splits = [split.detach().to("cpu", torch.float64) for split in (train, val, test)]
    spaces = {"": space}
    found: dict[str, float] = {}
    if space.num_levels is not None:
        levels = [space.values(split).flatten(1).long() for split in splits]
        found["categorical"] = _categorical(levels[0], levels[2], space.num_levels)
        spaces = {"": replace(space, logit=None)} | ({} if space.logit is None else {"logit_": space})
    for prefix, each in spaces.items():
        generator = torch.Generator().manual_seed(0)
        states, log_dets = zip(*(each.states(split, generator) for split in splits), strict=True)
        points = [split.flatten(1) for split in states]
        for name, fit in FITS.items():
            if space.dims <= LARGEST[name]:
                model = fit(points[0], points[1])
                found[prefix + name] = -(model.log_prob(points[2]) + log_dets[2]).mean().item()
    return found


FITS: dict[str, Callable[[Tensor, Tensor], GaussianMixture]] = {
    "gaussian": lambda train, val: GaussianMixture.single(train),
    "gaussian_mixture": chosen_mixture,
}


def _categorical(train: Tensor, test: Tensor, num_levels: int) -> float:
    """A distribution over the levels for each pixel of images `(n, d)`, from counts that begin at one."""
    dim = train.shape[1]
    offsets = num_levels * torch.arange(dim)
    counts = torch.ones(dim * num_levels, dtype=torch.float64)
    for part in train.split(CHUNK):
        counts += (part + offsets).flatten().bincount(minlength=dim * num_levels)
    log_prob = (counts / (len(train) + num_levels)).log()
    total = sum(log_prob[part + offsets].sum().item() for part in test.split(CHUNK))
    return -total / len(test)
