"""What a part needs to know of an ODE block: that it solves, from when to when, and which vector field."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from node_cli.ode import synchronised
from node_cli.ode.base import Solver
from node_cli.ode.own_times import joined
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import Solution


class SolvingModule(nn.Module, ABC):
    """Maps the state at `ts[0]` to that at `ts[-1]`, where dy/dt = vector_field(t, y), by `solver`.

    Where `energies` is a list, each solve adds to it, `(batch,)`, the mean square of the slope over the dimensions of a
    sample, integrated over its time, with a graph.
    """

    ts: Tensor
    solver: Solver
    energies: list[Tensor] | None = None
    vector_field: nn.Module

    @property
    def shares_steps(self) -> bool:
        """Whether the steps are those of several processes together, which must then all make the same solves."""
        return isinstance(self.solver, RungeKutta) and self.solver.shares_steps

    def largest(self, number: int, device: torch.device) -> int:
        """What the number of solves may depend on: the largest one of all processes that share steps."""
        return int(synchronised.largest_of(np.array(number), device)) if self.shares_steps else number

    def joined(self, ts: Tensor, tolerance: float = 0.0) -> Tensor:
        """Times `(batch, times)`, or the row `(times,)` that all samples have in common but for `tolerance`."""
        return joined(ts, tolerance=tolerance, is_shared=self.shares_steps)

    @abstractmethod
    def solve(self, y0: Tensor, ts: Tensor) -> Solution[Tensor]:
        """The states at all `ts` (float64), shape `(times, *y0.shape)`.

        `ts` are `(times,)`, or `(batch, times)` where each sample has times of its own, and starts from the first of
        them; a shorter row repeats its last time, which costs nothing.
        """


def solving_modules(model: nn.Module) -> list[SolvingModule]:
    """Those of a model, in order."""
    return [module for module in model.modules() if isinstance(module, SolvingModule)]
