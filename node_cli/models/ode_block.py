"""The block that stands where a ResNet has its residual blocks: an ODE solve."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from node_cli.models.energy import WithEnergy
from node_cli.ode.base import Solver
from node_cli.ode.block import SolvingModule
from node_cli.ode.compilation import outside_compilation
from node_cli.ode.gradients import Gradient
from node_cli.ode.runge_kutta import RungeKutta, settled
from node_cli.ode.solution import FirstSteps, Solution, SolveStats


class SolveRecord(NamedTuple):
    """What one solve cost; `backward` is filled by `backward()`."""

    forward: SolveStats
    backward: SolveStats


class OdeBlock(SolvingModule):
    """Maps y(t0) to y(t1), where dy/dt = vector_field(t, y). Input and output: `(batch, ...)`, float32 or float64.

    After a solve, `stats` and `backward_stats` tell what it cost; the second is filled by `backward()`. Where `solves`
    is a list, every solve is added to it, whether the block was called or asked to `solve`; a copy has its own list. In
    training, a solver that carries its first step over finds it in `first_steps`, which is part of the block's state;
    evaluation never depends on what was solved before. `planned_solves` is how many there will be in training,
    as far as is known, which `compile=auto` goes by. Where `energies` is a list, the kinetic energy of every solve is
    integrated with it, and added.

    Raises:
        ValueError: t0 equals t1, one of them is not finite, or the gradient and the solver do not go together.
    """

    ts: Tensor

    def __init__(
        self,
        vector_field: nn.Module,
        solver: Solver,
        gradient: Gradient,
        *,
        t0: float,
        t1: float,
        learn_times: bool,
    ) -> None:
        super().__init__()
        if t0 == t1:
            raise ValueError(f"t1 must differ from t0, got t0={t0} t1={t1}")
        if not (math.isfinite(t0) and math.isfinite(t1)):
            raise ValueError(f"t0 and t1 must be finite, got t0={t0} t1={t1}")
        gradient.check(solver)
        self.vector_field = vector_field
        self.solver = solver
        self.gradient = gradient
        self.stats = SolveStats()
        self.backward_stats = SolveStats()
        self.solves: list[SolveRecord] | None = None
        self.first_steps = FirstSteps()
        self.planned_solves = 0
        self._last_settled: tuple[Solver, Any, Solver] | None = None
        self._with_energy: list[WithEnergy] = []  # the last one, which may be compiled; in a list, as no part
        # Apple's GPUs have no float64.
        ts = torch.tensor([t0, t1], dtype=torch.float32 if torch.backends.mps.is_available() else torch.float64)
        if learn_times:
            self.ts = nn.Parameter(ts)
        else:
            self.register_buffer("ts", ts, persistent=False)

    def forward(self, y0: Tensor) -> Tensor:
        """The state at t1, shape of `y0`. Under autocast the state is kept in float32."""
        return self.solve(y0, self.ts).ys[-1]

    @outside_compilation
    def solve(self, y0: Tensor, ts: Tensor, vector_field: nn.Module | None = None) -> Solution[Tensor]:
        """See `SolvingModule.solve`.

        `vector_field` stands in the place of the block's own for this solve: one that holds what drives this batch.
        """
        if y0.dtype in (torch.bfloat16, torch.float16):
            y0 = y0.float()
        solver = self._settled(y0, self.planned_solves if vector_field is None else 0)
        vector_field = self.vector_field if vector_field is None else vector_field
        first_steps = self.first_steps if self.training else FirstSteps()
        if self.energies is None:
            solution = self.gradient.solve(solver, vector_field, y0, ts, first_steps)
        else:
            measured = self._measured(vector_field, y0.shape[1:])
            found = self.gradient.solve(solver, measured, measured.start(y0), ts, first_steps)
            ys, energy = measured.taken_apart(found.ys)
            self.energies.append(energy)
            solution = Solution(ys, found.stats, found.backward)
        self.stats, self.backward_stats = solution.stats, solution.backward_stats
        if self.solves is not None:
            self.solves.append(SolveRecord(self.stats, self.backward_stats))
        return solution

    def is_compiled(self, y0: Tensor) -> bool:
        """Whether solves of its own vector field from such a state are compiled."""
        solver = self._settled(y0, self.planned_solves)
        return isinstance(solver, RungeKutta) and solver.is_compiled

    def _settled(self, y0: Tensor, num_solves: int) -> Solver:
        """The solver, with what `compile=auto` means here."""
        num_solves, last = num_solves if self.training else 0, self._last_settled
        if last is None or last[0] is not self.solver or last[1] != (y0.shape, num_solves):
            last = self._last_settled = self.solver, (y0.shape, num_solves), settled(self.solver, y0, num_solves)
        return last[2]

    def _measured(self, vector_field: nn.Module, shape: torch.Size) -> WithEnergy:
        last = self._with_energy[0] if self._with_energy else None
        if last is None or last.vector_field is not vector_field or last.shape != shape:
            self._with_energy[:] = [WithEnergy(vector_field, shape)]
        return self._with_energy[0]

    def get_extra_state(self) -> Tensor:
        """The first steps, forward and backward, 0 for none: a continued run tries the same ones."""
        steps = (self.first_steps.forward, self.first_steps.backward)
        return torch.tensor([step or 0.0 for step in steps], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes up `get_extra_state`."""
        self.first_steps = FirstSteps(*(step or None for step in state.tolist()))


def ode_blocks(model: nn.Module) -> dict[str, OdeBlock]:
    """The ODE blocks of a model by their names, in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, OdeBlock)}
