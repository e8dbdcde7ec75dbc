"""The kinetic energy of a solve, integrated with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WithEnergy(nn.Module):
    """A vector field of states `(batch, ...)` as one of `(batch, n + 1)`: flat, and the mean square of its slope."""

    def __init__(self, vector_field: nn.Module, shape: torch.Size) -> None:
        super().__init__()
        self.vector_field = vector_field
        self.shape = shape

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        """`t` is 0-dim, or `(batch, 1)`."""
        t = t.view(-1, *(1,) * len(self.shape)) if t.dim() else t
        dy = self.vector_field(t, state[:, :-1].reshape(-1, *self.shape)).flatten(1)
        return torch.cat([dy, dy.square().mean(1, keepdim=True)], dim=1).to(state.dtype)

    def start(self, y0: Tensor) -> Tensor:
        """The state to start from."""
        return torch.cat([y0.flatten(1), y0.new_zeros(len(y0), 1)], dim=1)

    def taken_apart(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """States `(times, batch, ...)`, and the energy at the last time `(batch,)`; positive, backwards in time too."""
        return states[..., :-1].view(*states.shape[:2], *self.shape), states[-1, :, -1].abs()
