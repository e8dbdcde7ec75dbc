"""The vector field of a flow with what is integrated along its paths: the trace of its Jacobian, and penalties."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from node_cli.flow import JACOBIAN, KINETIC, TOTAL_DERIVATIVE


class Conditioned(nn.Module):
    """A vector field that is given the class of each sample."""

    def __init__(self, vector_field: nn.Module, labels: Tensor | None) -> None:
        super().__init__()
        self.vector_field = vector_field
        self.labels = labels

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt, of the shape of `y`."""
        dy: Tensor = self.vector_field(t, y) if self.labels is None else self.vector_field(t, y, self.labels)
        return dy

    @property
    def names(self) -> tuple[str, ...]:
        """What tells it from other fields that are compiled for a solve."""
        return ()

    def tensors(self) -> dict[str, Tensor | None]:
        """What belongs to one solve, by the names of attributes."""
        return {"labels": self.labels}


class Along(nn.Module):
    """The slope of a state `(n, d + columns)`: samples of `shape`, flat, then what is integrated along their paths.

    The columns are the trace of df/dy, by each of `probes (probes, n, *shape)` or exact (None), then `integrals`, see
    `node_cli.flow`. The probes are those of one solve: a path integrated with changing ones would be of no density.
    """

    def __init__(
        self, vector_field: Conditioned, shape: tuple[int, ...], probes: Tensor | None, integrals: Sequence[str]
    ) -> None:
        super().__init__()
        self.vector_field = vector_field
        self.shape = shape
        self.probes = probes
        self.integrals = tuple(integrals)

    @property
    def names(self) -> tuple[str, ...]:
        """See `Conditioned.names`."""
        return self.integrals

    def tensors(self) -> dict[str, Tensor | None]:
        """See `Conditioned.tensors`."""
        return {"probes": self.probes, "vector_field.labels": self.vector_field.labels}

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """`t` is 0-dim, or `(n, 1)`."""
        count, dims = len(state), math.prod(self.shape)
        y = state[:, :dims].reshape(count, *self.shape)
        t = t.reshape(-1, *(1,) * len(self.shape)) if t.dim() else t
        if self.probes is None:
            probes = torch.eye(dims, dtype=y.dtype, device=y.device).view(dims, 1, *self.shape)
            probes = probes.expand(dims, count, *self.shape)
        else:
            probes = self.probes
        dy, rows = _slope_and_rows(lambda y: self.vector_field(t, y), y, probes)
        products = (rows * probes).flatten(2).sum(2)  # (probes, n)
        columns = [products.sum(0)[:, None] if self.probes is None else products.T]
        for name in self.integrals:
            columns.append(self._integrand(name, t, y, dy, rows)[:, None] / dims)
        return torch.cat([dy.flatten(1), *columns], dim=1).to(state.dtype)

    def _integrand(self, name: str, t: Tensor, y: Tensor, dy: Tensor, rows: Tensor) -> Tensor:
        """A sum over the dimensions of each sample, `(n,)`."""
        if name == KINETIC:
            return dy.flatten(1).square().sum(1)
        if name == JACOBIAN:
            squares = rows.flatten(2).square().sum(2)
            return squares.sum(0) if self.probes is None else squares.mean(0)
        assert name == TOTAL_DERIVATIVE
        # Forwards by two transposes: torch's own forward mode knows fewer operations, and is slower.
        _, pull, *_ = torch.func.vjp(self.vector_field, t.to(y.dtype), y)
        _, push, *_ = torch.func.vjp(pull, torch.zeros_like(dy))
        change: Tensor = push((torch.ones_like(t, dtype=y.dtype), dy))[0]
        return change.flatten(1).square().sum(1)


def _slope_and_rows(field: Callable[[Tensor], Tensor], y: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """`field(y)`, and the products of `probes` `(probes, n, ...)` with its Jacobian, of the same shape."""
    with_graph = torch.is_grad_enabled()
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
        dy, pull, *_ = torch.func.vjp(field, y)
    else:  # the same, faster, and without importing the compiler, which takes two seconds
        with torch.enable_grad():
            y = y if with_graph and y.requires_grad else y.detach().requires_grad_()
            dy = field(y)

        def pull(probe: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(dy, y, probe, retain_graph=True, create_graph=with_graph)

    probes = probes.to(dy.dtype)
    # vmap of one costs more than it
    rows = pull(probes[0])[0][None] if len(probes) == 1 else torch.func.vmap(lambda probe: pull(probe)[0])(probes)
    return dy if with_graph else dy.detach(), rows
