"""Stand-ins for the arguments of compiled functions: one solve's state, times, tolerances and inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.graphs.capture import FieldGraph
from node_cli.ode.graphs.lowering import NotWhole, lowered, traced

Run = Callable[[list[Any]], tuple[Tensor, ...]]  # empties the list that it is given
CLOCK = 5  # numbers that go from block to block: the time, the step to try, and the memory of the controller


class Examples:
    """Of solves of one vector field, with tolerances of these shapes."""

    def __init__(self, field: FieldGraph, tolerance_shapes: tuple[torch.Size, ...], *, has_own_times: bool) -> None:
        self.field = field
        self.num_bounds = len(tolerance_shapes)
        self.has_own_times = has_own_times
        self._shapes = tolerance_shapes

    def compiled(
        self, function: Callable[..., Any], examples: Callable[[], list[Any]], *, has_inputs: bool = True
    ) -> Run:
        """The function compiled for arguments like these examples and, at the end, the inputs."""
        y = self.field.y
        with y.fake_mode, torch.no_grad():
            arguments = [*examples(), *(self.field.inputs if has_inputs else ())]
        run = lowered(function, arguments, y.fake_mode, y.device.type)
        if not self.field.holds():
            raise NotWhole(f"{function.__name__} cannot be compiled for a batch of this size after one of another")
        return run

    def require_whole(self) -> None:
        """Traces an evaluation, and compiles nothing.

        Raises:
            NotWhole: it is not all in the graph.
        """
        y = self.field.y
        with y.fake_mode, torch.no_grad():
            arguments = [self.y(), *self.field.inputs]

        def evaluation(y: Tensor, *inputs: Tensor) -> tuple[Tensor]:
            return (self.field.slope(inputs)(y.new_zeros(()), y),)

        traced(evaluation, arguments, y.fake_mode)

    def ends(self, *num_steps: int) -> Tensor:
        """Both ends of a step, or of several."""
        y = self.field.y
        return self._times(*num_steps, 2, *((y.shape[0],) if self.has_own_times else ()))

    def y(self) -> Tensor:
        """A state."""
        y = self.field.y
        return torch.empty(y.shape, dtype=y.dtype, device=y.device)

    def mask(self) -> Tensor:
        """Of the samples."""
        y = self.field.y
        return torch.empty((y.shape[0], *(1,) * (y.dim() - 1)), dtype=torch.bool, device=y.device)

    def tolerance(self) -> list[Tensor]:
        """What bounds the error, relative and absolute."""
        y = self.field.y
        return [torch.empty(shape, dtype=y.dtype, device=y.device) for shape in self._shapes]

    def times(self, at_least: int) -> Tensor:
        """Any number of output times, or of shares of a step."""
        shape_env = self.field.y.fake_mode.shape_env
        with shape_env.ignore_fresh_unbacked_symbols():
            count: Any = shape_env.create_unbacked_symint()
        torch._check(count >= at_least)
        return self._times(count)

    def states_at(self, times: Tensor) -> Tensor:
        """States at these output times."""
        y = self.field.y
        return torch.empty((times.shape[0], *y.shape[int(self.has_own_times) :]), dtype=y.dtype, device=y.device)

    def outputs(self) -> list[Tensor]:
        """Theta, and the samples, of any number of outputs."""
        theta = self.times(0)
        return [theta, torch.empty_like(theta, dtype=torch.int64)] if self.has_own_times else [theta]

    def clock(self) -> Tensor:
        """What step size control knows."""
        return self._times(CLOCK)

    def _times(self, *shape: Any) -> Tensor:
        return torch.empty(shape, dtype=torch.float64, device=self.field.y.device)
