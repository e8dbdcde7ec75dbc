"""Smooth curves through noisy series and their slopes, by which a vector field is matched without a solve."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTHS = (0.7, 1.0, 1.5, 2.0, 3.0, 4.5)  # of the kernel, in median spacings; the best is chosen by leaving points out
RIDGE = 1e-8


def smooth(times: Tensor, values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Values and slopes at all times by local quadratic regression, each series and channel alone.

    The width of the Gaussian kernel, one for each channel, is the one of `WIDTHS` with the least error at points that
    are left out. Shapes: times `(n, T)`, values and observed `(n, T, C)`; the results `(n, T, C)`. Where a channel was
    observed fewer than four times the slopes are NaN.

    Source: Fan and Gijbels 1996, *Local Polynomial Modelling and Its Applications*.
    """
    values, observed = values.double(), observed.double()
    apart = times.double()[:, None, :] - times.double()[:, :, None]  # (n, T, T): column less row
    steps = times.double().diff(dim=1)
    spacing = steps[steps > 0].median()
    fits = [_fit(apart / (width * spacing), values, observed, width * spacing) for width in WIDTHS]
    errors = torch.stack([left_out for _, _, left_out in fits])  # (widths, C)
    best = errors.nan_to_num(nan=torch.inf).argmin(0)
    smoothed, slopes = (
        torch.stack([fits[int(width)][part][..., channel] for channel, width in enumerate(best)], dim=-1)
        for part in (0, 1)
    )
    enough = (observed.sum(1, keepdim=True) >= 4).expand_as(slopes)
    return smoothed, torch.where(enough, slopes, torch.nan)


def _fit(scaled: Tensor, values: Tensor, observed: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values, slopes, and the mean square error of each channel where a point is left out of its own fit."""
    kernel = torch.exp(-scaled.square() / 2)  # (n, T, T)
    weights = kernel[..., None] * observed[:, None]  # (n, T, T, C)
    powers = torch.stack([scaled**power for power in range(5)], dim=-1)  # (n, T, T, 5)
    moments = torch.einsum("nijc,nijp->nicp", weights, powers)
    design = moments[..., torch.arange(3)[:, None] + torch.arange(3)]  # (n, T, C, 3, 3)
    design = design + RIDGE * design.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None] * torch.eye(3).to(design)
    right = torch.einsum("nijc,nijp,njc->nicp", weights, powers[..., :3], values)
    inverse = torch.linalg.pinv(design, hermitian=True)
    coefficients = (inverse @ right[..., None])[..., 0]
    fitted, leverage = coefficients[..., 0], inverse[..., 0, 0]  # of a point in its own fit; its weight there is 1
    left_out = (values - fitted) / (1 - leverage.clamp(max=0.999))
    error = (observed * left_out.square()).sum((0, 1)) / observed.sum((0, 1)).clamp(min=1)
    return fitted, coefficients[..., 1] / width, error
