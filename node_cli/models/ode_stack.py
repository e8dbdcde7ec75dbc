"""What the models with ODE-solve blocks share: augmentation with zeros, and several blocks in a row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from node_cli.models.ode_block import OdeBlock
from node_cli.ode.base import Solver
from node_cli.ode.checks import require_at_least
from node_cli.ode.gradients import Gradient


class ZeroChannels(nn.Module):
    """Adds `augment_dim` channels of zeros: `(batch, c, ...)` -> `(batch, c + augment_dim, ...)`.

    The trajectories of an ODE cannot cross; with more dimensions they need not (Dupont et al. 2019).
    """

    def __init__(self, augment_dim: int) -> None:
        super().__init__()
        require_at_least("augment_dim", augment_dim, 0)
        self.augment_dim = augment_dim

    def forward(self, y: Tensor) -> Tensor:
        """`y`, then the zeros, along dimension 1."""
        return torch.cat([y, y.new_zeros(len(y), self.augment_dim, *y.shape[2:])], dim=1)


def ode_block(
    vector_field: nn.Module,
    solver: Solver,
    gradient: Gradient,
    channels: int,
    *,
    t0: float,
    t1: float,
    learn_times: bool,
) -> OdeBlock:
    """An ODE-solve block from t0 to t1 for a state with so many channels.

    Raises:
        ValueError: the block refuses the interval or the solver, or the solver has tolerances for another number of
            channels.
    """
    atol = vars(solver).get("atol")
    if isinstance(atol, list) and len(atol) != channels:
        raise ValueError(
            f"solver.atol must be a number, or one for each of the state's {channels} channels, got {len(atol)}"
        )
    return OdeBlock(vector_field, solver, gradient, t0=t0, t1=t1, learn_times=learn_times)


def ode_stack(
    make_vector_field: Callable[[], nn.Module],
    solver: Solver,
    gradient: Gradient,
    *,
    num_blocks: int,
    channels: int,
    t0: float,
    t1: float,
    learn_times: bool,
) -> nn.Sequential:
    """`num_blocks` ODE-solve blocks in a row from t0 to t1, each with its own vector field.

    Raises:
        ValueError: when `num_blocks` is below 1, or `ode_block` refuses.
    """
    require_at_least("num_blocks", num_blocks, 1)
    return nn.Sequential(
        *(
            ode_block(make_vector_field(), solver, gradient, channels, t0=t0, t1=t1, learn_times=learn_times)
            for _ in range(num_blocks)
        )
    )
