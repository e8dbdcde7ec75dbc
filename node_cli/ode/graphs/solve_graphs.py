"""What one solve by compiled graphs is made of, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.control import Tolerance
from node_cli.ode.graphs.block_plan import BlockPlan
from node_cli.ode.graphs.blocks import Blocks
from node_cli.ode.graphs.examples import Examples
from node_cli.ode.graphs.field_graph import FieldGraph
from node_cli.ode.graphs.places import Places
from node_cli.ode.stepping import Slope, Step
from node_cli.ode.tableaus import Array, Tableau

FEW_NUMBERS = 1024  # of outputs that are made step by step; of more, it is faster to make them of many steps at once
FAR_MORE = 16  # times; nothing is compiled again for less


@dataclass(eq=False)
class Trace:
    """The accepted steps of a solve through `ts`, their states with the last one, and where the outputs lie.

    Of a solve without anything compiled, `places` are not known; `kept` is what the gradient needs of each step, if the
    blocks keep it. The `ends` are `(steps, 2)`, or `(steps, 2, batch)`, both equal for a sample that does not move;
    `times` are `ts` on the device, if the blocks make the outputs.
    """

    blocks: Blocks
    ts: Array
    times: Tensor | None
    ends: Array
    states: list[Tensor]
    places: Places | None
    kept: list[list[Tensor]]
    steps: Callable[[], list[Step]]


class SolveGraphs:
    """What one solve runs: a captured vector field with the `inputs` that it uses now, and what is compiled of it.

    `refuse` is told why something of it cannot be compiled: from then on nothing is. `trace` is what a solve leaves
    behind for its gradient, if it `has_gradient`, which `keeps` all that it needs of a step, or runs steps again; it is
    one of the times too, or not, `with_times`.
    """

    def __init__(
        self,
        field: FieldGraph,
        inputs: tuple[Tensor, ...],
        tableau: Tableau,
        refuse: Callable[[Exception], None],
    ) -> None:
        self.field = field
        self.inputs = inputs
        self.tableau = tableau
        self.refuse = refuse
        self.has_gradient = False
        self.keeps = False
        self.with_times = False
        self.trace: Trace | None = None
        self.differentiable = tuple(tensor for tensor, needed in zip(inputs, field.needs_grad, strict=True) if needed)

    def blocks(self, *, by_sample: bool, num_outputs: int, interpolates: bool, size: int) -> Blocks:
        """The compiled blocks of the method, for solves with outputs between the first and the last one, or none.

        The `size` of the outputs, in numbers, of the first of these solves tells whether the blocks make them; those of
        solves with far more have blocks of their own.
        """
        has_outputs = num_outputs > 2
        key = (self.tableau, by_sample, has_outputs, interpolates, size > FAR_MORE * FEW_NUMBERS)
        found: Blocks | None = self.field.functions.get(key)
        if found is None:
            interpolates = interpolates and has_outputs
            plan = BlockPlan(
                examples=Examples(self.field, by_sample=by_sample),
                tableau=self.tableau,
                has_outputs=has_outputs,
                interpolates=interpolates,
                adds_up=interpolates and not by_sample and size <= FEW_NUMBERS,
            )
            found = Blocks(plan)
            self.field.functions[key] = found
        return found

    def with_inputs(self, differentiable: Any) -> Slope:
        """The vector field with other tensors in the places of the inputs that have a gradient."""
        others, needs_grad = iter(differentiable), self.field.needs_grad
        return self.field.slope(
            [next(others) if needed else tensor for tensor, needed in zip(self.inputs, needs_grad, strict=True)]
        )


def bounds_of(tolerance: Tolerance, y: Tensor) -> tuple[Tensor, ...]:
    """Relative and absolute tolerance as tensors of the state's dtype."""
    return tuple(
        value if isinstance(value, Tensor) else _number(value, y.dtype, y.device)
        for value in (tolerance.rtol, tolerance.atol)
    )


@lru_cache(maxsize=64)
def _number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)
