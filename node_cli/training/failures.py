"""What the solver of a model does about failed solves, and its fallback."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from node_cli.models.ode_block import ode_blocks
from node_cli.ode.solvers import fallback_of


def on_failure(model: nn.Module) -> str:
    """`on_failure` of the solver, which all ODE blocks share; `raise` for a model without ODE blocks."""
    return next((block.solver.on_failure for block in ode_blocks(model).values()), "raise")


@contextmanager
def fallback_solvers(model: nn.Module) -> Iterator[None]:
    """Within this context, every ODE block uses its solver's fallback."""
    own = {block: block.solver for block in ode_blocks(model).values()}
    try:
        for block, solver in own.items():
            block.solver = fallback_of(solver)
        yield
    finally:
        for block, solver in own.items():
            block.solver = solver


def check_fallback(model: nn.Module) -> None:
    """Raises ValueError if the gradient does not work with the solver that the model may have to fall back on."""
    for block in ode_blocks(model).values():
        if block.solver.on_failure == "fallback":
            try:
                block.gradient.check(fallback_of(block.solver))
            except ValueError as error:
                raise ValueError(
                    "solver.on_failure=fallback solves by rk4, which has no tolerances and no norm for gradient.rtol, "
                    "gradient.atol and gradient.norm: set them to null, null and full, or take "
                    "solver.on_failure=skip_batch"
                ) from error


def state_beside_weights(model: nn.Module) -> dict[str, Any]:
    """A copy of what a forward pass may change: buffers, and the step sizes that ODE blocks carry over."""
    weights = dict(model.named_parameters())
    return copy.deepcopy({name: value for name, value in model.state_dict().items() if name not in weights})
