"""What is audited: a solver at a tolerance, and a gradient method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from node_cli.advice import in_keys
from node_cli.ode.base import Solver, VectorField
from node_cli.ode.gradients import Gradient
from node_cli.ode.solution import FirstSteps, Solution


@dataclass(frozen=True)
class Case:
    """One way to take a gradient. `rtol` is None for a solver without tolerances."""

    solver_name: str
    gradient_name: str
    solver: Solver
    gradient: Gradient
    rtol: float | None

    @property
    def method(self) -> str:
        """The solver and the gradient, without the tolerance."""
        return f"{self.solver_name} {self.gradient_name}"

    @property
    def name(self) -> str:
        """What tells one case from another."""
        return self.method if self.rtol is None else f"{self.method} {self.rtol:g}"

    def solve(self, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor) -> Solution[Tensor]:
        """A solve that is differentiated in this way; its first step is chosen, not carried over from another solve."""
        return self.gradient.solve(self.solver, vector_field, y0, ts, FirstSteps())


def make_cases(
    solvers: Mapping[str, Solver], gradients: Mapping[str, Gradient], rtols: Sequence[float]
) -> tuple[list[Case], list[str]]:
    """Every solver with every gradient at every tolerance, and a line for each pair that does not go together.

    `atol` keeps its proportion to `rtol`. A solver without tolerances appears once.

    Raises:
        ValueError: a gradient goes with none of the solvers, or a solver with none of the gradients.
    """
    cases, refusals = [], {}
    for solver_name, solver in solvers.items():
        for gradient_name, gradient in gradients.items():
            try:
                gradient.check(solver)
            except ValueError as error:
                refusals[solver_name, gradient_name] = in_keys(error)
                continue
            for rtol in rtols if solver.has_tolerances else [None]:
                at_rtol = solver if rtol is None else _at_tolerance(solver, rtol)
                cases.append(Case(solver_name, gradient_name, at_rtol, gradient, rtol))
    for place, names in enumerate((solvers, gradients)):
        for name in names:
            lines = [line for pair, line in refusals.items() if pair[place] == name]
            if len(lines) == len((gradients, solvers)[place]):
                raise ValueError(lines[0])
    return cases, [f"left out: {' '.join(pair)}: {line}" for pair, line in refusals.items()]


def _at_tolerance(solver: Solver, rtol: float) -> Solver:
    own_rtol, own_atol = vars(solver)["rtol"], vars(solver)["atol"]
    factor = rtol / own_rtol
    atol: Any = [factor * each for each in own_atol] if isinstance(own_atol, list) else factor * own_atol
    return solver.with_tolerances(rtol, atol)
