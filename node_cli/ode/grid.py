"""Steps of one size through a whole solve, as torchdiffeq's methods on a grid take them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from node_cli.ode import control
from node_cli.ode.checks import require_choice, require_positive
from node_cli.ode.integrate import OutputTimes, Record, integrate_on_grid
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import SolveStats
from node_cli.ode.stepping import Stepper
from node_cli.ode.tableaus import TABLEAUS, Tableau

# A straight line between the two ends of a step: y + theta h sum_i b_i k_i.
LINEAR = {name: replace(tableau, dense=tuple((b,) for b in tableau.b)) for name, tableau in TABLEAUS.items()}


@dataclass(frozen=True, kw_only=True)
class Grid(RungeKutta):
    """Steps of `step_size` from the first output time to the last one, the last step shorter.

    Steps do not end at the outputs between, which are interpolated linearly: of order 2, whatever the method.
    """

    step_size: float
    has_tolerances: ClassVar[bool] = False
    has_norm: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("method", self.method, tuple(TABLEAUS))
        require_positive(step_size=self.step_size)

    @property
    def tableau(self) -> Tableau:
        """See `RungeKutta.tableau`."""
        return LINEAR[self.method]

    def grid(self, t0: float, t1: float) -> list[float]:
        """The ends of the steps from `t0` to `t1`; the rounding of times in float32 makes no step of its own."""
        count = max(1, math.ceil(abs(t1 - t0) / self.step_size * (1 - 1e-6)))
        size = math.copysign(self.step_size, t1 - t0)
        return [*(t0 + i * size for i in range(1, count)), t1]

    def _steps(
        self,
        stepper: Stepper,
        y0: Tensor,
        ts: list[float],
        norm: control.Norm | None,
        first_step: float | None,
        stats: SolveStats,
        record: Record,
    ) -> Tensor:
        times = OutputTimes(ts, stepping_onto=False)
        return integrate_on_grid(stepper, self.grid, y0, times, stats, record, is_anchored=True)
