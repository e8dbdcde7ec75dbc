"""The steps of a solve as a differentiable function: it has the exact gradient that a method is compared with.

The steps are recorded, and taken once more in plain operations of autograd. The gradient methods share no backward code
with it, so their errors show.
"""

from __future__ import annotations

import torch
from torch import Tensor

from node_cli.ode.base import Solver, VectorField
from node_cli.ode.gradients.replay import replay
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import Solution, SolveStats
from node_cli.ode.states import keep_autocast, outside_autocast
from node_cli.ode.stepping import Step


class FixedSteps:
    """The steps that `solver` takes from `y0` at `ts`, to be taken again from other states and times.

    When `ts` move, the steps keep their places as fractions of their interval. A solver that does not report its steps
    (torchdiffeq) chooses them anew in every call.
    """

    def __init__(self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor) -> None:
        assert solver.differentiable
        self._solver = solver
        self._steps: list[Step] = []
        self._ts = ts.detach()
        self.solution = self._record(vector_field, y0.detach(), self._ts)

    def _record(self, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor) -> Solution[Tensor]:
        with torch.no_grad():
            if not isinstance(self._solver, RungeKutta):
                return self._solver.integrate(vector_field, y0, ts)
            return self._solver.integrate(vector_field, y0, ts, record=lambda step, _: self._steps.append(step))

    def __call__(self, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor) -> Tensor:
        """The states at `ts`, with a graph for all that they depend on."""
        if not isinstance(self._solver, RungeKutta):
            return self._solver.integrate(vector_field, y0, ts).ys
        device = y0.device.type
        field = keep_autocast(vector_field, device)
        with outside_autocast(device):
            return replay(self._solver.tableau, field, self._steps, y0, ts, self._ts)

    @property
    def stats(self) -> SolveStats:
        """What the recorded solve cost."""
        return self.solution.stats
