"""What is audited (a solver at a tolerance, and a gradient), and what an audit leaves: tables, figures, a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from node_cli.advice import in_keys
from node_cli.config import ConfigError
from node_cli.files import finite, write_whole
from node_cli.ode.base import Solver, VectorField
from node_cli.ode.gradients import Gradient
from node_cli.ode.solution import FirstSteps, Solution
from node_cli.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tick = Callable[[str], None]  # called before each measurement, with its name


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

    @property
    def steps(self) -> str:
        """What tells one solver at a tolerance from another, whatever the gradient."""
        return self.solver_name if self.rtol is None else f"{self.solver_name} {self.rtol:g}"

    def solve(self, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor) -> Solution[Tensor]:
        """A solve that is differentiated in this way; its first step is chosen, not carried over from another solve."""
        return self.gradient.solve(self.solver, vector_field, y0, ts, FirstSteps())


def make_cases(
    solvers: Mapping[str, Solver], gradients: Mapping[str, Gradient], rtols: Sequence[float]
) -> tuple[list[Case], list[str]]:
    """Every solver with every gradient at every tolerance, and a line for each pair that does not go together.

    `atol` keeps its proportion to `rtol`. A solver without tolerances appears once.

    Raises:
        ConfigError: a gradient goes with none of the solvers, or a solver with none of the gradients.
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
                raise ConfigError(lines[0])
    return cases, [f"left out: {' '.join(pair)}: {line}" for pair, line in refusals.items()]


def _at_tolerance(solver: Solver, rtol: float) -> Solver:
    own_rtol, own_atol = vars(solver)["rtol"], vars(solver)["atol"]
    factor = rtol / own_rtol
    atol: Any = [factor * each for each in own_atol] if isinstance(own_atol, list) else factor * own_atol
    return solver.with_tolerances(rtol, atol)


@dataclass(frozen=True)
class AuditReport:
    """What an audit has found. `details` are plain containers; `figures` are named after their files."""

    tables: Sequence[Table]
    notes: Sequence[str]
    verdict: str
    figures: Mapping[str, Figure]
    details: Mapping[str, Any]


class AuditProblem(Protocol):
    """What `problem` chooses: something whose gradients can be known."""

    def num_measurements(self, cases: Sequence[Case]) -> int:
        """How often `audit` calls its `tick`."""

    def audit(self, cases: Sequence[Case], tick: Tick) -> AuditReport:
        """Measures every case.

        Raises:
            SolveError: a solve failed on a problem where none should.
        """


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Plain containers as JSON, whole or not at all. JSON has no infinity: it becomes null."""
    text = json.dumps(finite(content), indent=2, allow_nan=False)
    write_whole(path, f"{text}\n".encode())
