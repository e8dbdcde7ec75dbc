"""Stand-ins for the arguments of compiled functions: one solve's state, times, tolerances and inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.graphs.capture import FieldGraph
from node_cli.ode.graphs.lowering import NotWhole, lowered, traced

Run = Callable[[list[Any]], tuple[Tensor, ...]]  # empties the list that it is given


class Examples:
    """Of solves of one vector field."""

    def __init__(self, field: FieldGraph) -> None:
        self.field = field

    def compiled(self, function: Callable[..., Any], examples: Callable[[], list[Any]]) -> Run:
        """The function compiled for arguments like these examples and, at the end, the inputs."""
        y = self.field.y
        with y.fake_mode, torch.no_grad():
            arguments = [*examples(), *self.field.inputs]
        run = lowered(function, arguments, y.fake_mode, y.device.type, writes_out=self.field.is_short)
        if not self.field.holds():
            raise NotWhole(f"{function.__name__} cannot be compiled for a batch of this size after one of another")
        return run

    def require_whole(self) -> None:
        """Traces an evaluation, whose operations are counted, and compiles nothing.

        Raises:
            NotWhole: it is not all in the graph.
        """
        y = self.field.y
        with y.fake_mode, torch.no_grad():
            arguments = [self.y(), *self.field.inputs]

        def evaluation(y: Tensor, *inputs: Tensor) -> tuple[Tensor]:
            return (self.field.slope(inputs)(y.new_zeros(()), y),)

        graph = traced(evaluation, arguments, y.fake_mode).graph
        self.field.num_operations = len(graph.nodes) - len(graph.find_nodes(op="placeholder")) - 1

    def y(self) -> Tensor:
        """A state."""
        y = self.field.y
        return torch.empty(y.shape, dtype=y.dtype, device=y.device)

    def like_y(self, shape: torch.Size) -> Tensor:
        """A tolerance, say."""
        return torch.empty(shape, dtype=self.field.y.dtype, device=self.field.y.device)

    def exact(self, *shape: Any) -> Tensor:
        """Numbers in float64."""
        return torch.empty(shape, dtype=torch.float64, device=self.field.y.device)

    def times(self) -> Tensor:
        """Any number of output times."""
        shape_env = self.field.y.fake_mode.shape_env
        with shape_env.ignore_fresh_unbacked_symbols():
            count: Any = shape_env.create_unbacked_symint()
        torch._check(count >= 2)
        return self.exact(count)

    def states_at(self, times: Tensor) -> Tensor:
        """States at these output times."""
        y = self.field.y
        return torch.empty((times.shape[0], *y.shape), dtype=y.dtype, device=y.device)
