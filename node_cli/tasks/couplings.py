"""Which noise goes with which sample of a minibatch in flow matching."""

from __future__ import annotations

import torch
from torch import Tensor

from node_cli.ode.checks import require_choice

COUPLINGS = ("independent", "ot", "conditional_ot")


def coupled(noise: Tensor, data: Tensor, kind: str, labels: Tensor | None = None) -> Tensor:
    """For each sample the index `(n,)` of its noise; every noise is used exactly once.

    Args:
        noise: `(n, d...)`, drawn independently of `data`.
        data: `(n, d...)`.
        kind: `independent`: in the order in which they come. `ot`: the permutation with the smallest total squared
            distance. `conditional_ot`: the same within each label, so that the noise given a label stays the base;
            with `ot` it does not, and a model that is given the label learns the wrong density.
        labels: `(n,)` whole numbers, for `conditional_ot`.

    Raises:
        ValueError: an unknown kind, no labels, unequal shapes, or values that are not finite.

    Source: Pooladian et al. 2023 (arXiv 2304.14772) and Tong et al. 2024 (arXiv 2302.00482); with conditions Cheng and
    Schwing 2025 (arXiv 2503.10636).
    """
    require_choice("coupling", kind, COUPLINGS)
    order = torch.arange(len(data), device=data.device)
    if kind == "independent":
        return order
    if kind == "ot":
        return assigned(data, noise)
    if labels is None:
        raise ValueError("coupling=conditional_ot needs the label of each sample: take coupling=ot without labels")
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        order[members] = members[assigned(data[members], noise[members])]
    return order


def assigned(a: Tensor, b: Tensor) -> Tensor:
    """For each of the points `a` `(n, d...)` the index of its own of `b`, with the smallest total squared distance.

    The assignment is exact, and made on the CPU in float64.

    Raises:
        ValueError: unequal shapes, or values that are not finite.
    """
    from scipy.optimize import linear_sum_assignment  # only now: importing it takes a while

    if a.shape != b.shape:
        raise ValueError(f"points must be paired with as many of their kind, got {tuple(a.shape)} and {tuple(b.shape)}")
    first, second = (points.detach().flatten(1).to("cpu", torch.float64) for points in (a, b))
    cost = -(first @ second.T)  # half the squared distance, but for terms that are the same in every permutation
    if not cost.isfinite().all():
        raise ValueError("the distances between points must be finite, got NaN or infinite values")
    _, indices = linear_sum_assignment(cost.numpy())
    chosen = torch.from_numpy(indices)
    assert torch.equal(chosen.sort().values, torch.arange(len(a))), "an assignment uses every point once"
    return chosen.to(a.device)
