"""Derivatives of a network that are themselves a vector field."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_of(function: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """The gradient `(n, S)` of `function`, `(n, S)` -> `(n,)`; with a graph where graphs are made."""
    is_wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        y = y if y.requires_grad else y.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(y).sum(), y, create_graph=is_wanted)
    return slope


def gradient_and_rows(function: Callable[[Tensor], Tensor], y: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The gradient `(n, S)` of `function`, `(n, S)` -> `(n,)`, and the rows of its Hessian from `first` on.

    These are `(n, S - first, S)`; both with a graph where graphs are made.
    """
    is_wanted = torch.is_grad_enabled()
    with torch.enable_grad():
        y = y if y.requires_grad else y.detach().requires_grad_()
        (slope,) = torch.autograd.grad(function(y).sum(), y, create_graph=True)
        rows = [
            torch.autograd.grad(slope[:, i].sum(), y, create_graph=is_wanted, retain_graph=True)[0]
            for i in range(first, y.shape[1])
        ]
    hessian = torch.stack(rows, dim=1)
    return (slope, hessian) if is_wanted else (slope.detach(), hessian)
