"""dz/dt = A z in two dimensions, with a squared loss at many times: how the adjoint jumps, and Euler against exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.audit.base import AuditReport, Tick
from node_cli.audit.case import Case
from node_cli.audit.closed_form import WRONG_SIGN, CaseResult, Results, measure, num_measurements, plain
from node_cli.audit.closed_form_figures import add_legend, draw_curves, draw_gradient_errors, draw_over_time
from node_cli.audit.closed_form_verdict import findings, verdict
from node_cli.audit.comparison import Gradients
from node_cli.audit.linear_euler import EULER_NOTE, draw_euler, euler_errors, euler_table, orders
from node_cli.audit.linear_problem import LinearProblem
from node_cli.figures import panels
from node_cli.ode.checks import require
from node_cli.tables import Table

MAX_EXPONENT = 50
FORGOTTEN = "the jumps are missing (only the last observation hands anything over)"
NOTES = (
    (
        "Where a solver interpolates between its steps, dL/dt_i of direct and checkpoint is the slope of that "
        "interpolation, less exact than its value; adjoint evaluates A z(t_i)."
    ),
    (
        "The adjoint starts at t_N from what the loss hands over there, 2/N (z(t_N) - z_N), obeys da/dt = -A^T a "
        "between two observations, and jumps by 2/N (z(t_i) - z_i) at each: the jump is the partial derivative of "
        "the loss, with the later states held still, and a(t_i) the total one, with all that follows from z(t_i)."
    ),
    EULER_NOTE,
)
JUMP_COLUMNS = {
    "partial": "partial (the jump)",
    "before": "total, before t_i",
    "after": "total, after t_i",
    "computed_before": "computed, before",
    "computed_after": "computed, after",
}


@dataclass(frozen=True, kw_only=True)
class LinearAudit:
    """dz/dt = A z from `z0` at `t0`, loss (1/N) sum |z_i - z(t_i)|^2 over N equidistant times up to `t1`.

    `matrix` is A; the z_i come from the matrix `observed`. `euler_steps` are numbers of steps of Euler's method between
    two observations.
    """

    matrix: Sequence[Sequence[float]]
    observed: Sequence[Sequence[float]]
    z0: Sequence[float]
    t0: float
    t1: float
    num_observations: int
    euler_steps: Sequence[int]

    def __post_init__(self) -> None:
        for key in ("matrix", "observed"):
            rows = vars(self)[key]
            is_square = len(rows) == 2 and all(len(row) == 2 for row in rows)
            require(is_square, f"{key} must be two rows of two numbers", rows)
        require(len(self.z0) == 2 and any(self.z0), "z0 must be two numbers that are not both 0", self.z0)
        require(self.t1 != self.t0, f"t1 must be another time than t0 ({self.t0})", self.t1)
        require(self.num_observations >= 1, "num_observations must be at least 1", self.num_observations)
        enough = len(set(self.euler_steps)) >= 3 and min(self.euler_steps) >= 1
        require(enough, "euler_steps must be three or more different numbers of at least 1", self.euler_steps)
        size = max(float(np.abs(rows).sum(1).max()) for rows in map(np.array, (self.matrix, self.observed)))
        exponent = size * abs(self.t1 - self.t0)
        within = f"matrix and observed times t1 - t0 must be within {MAX_EXPONENT}"
        require(exponent <= MAX_EXPONENT, within, exponent)
        differ = bool(self.problem().jumps().any())
        require(differ, "observed must lead to other states than matrix", self.observed)

    def problem(self) -> LinearProblem:
        """What is solved."""
        ts = torch.tensor(np.linspace(self.t0, self.t1, self.num_observations + 1))
        matrix, observed, z0 = (torch.tensor(x, dtype=torch.float64) for x in (self.matrix, self.observed, self.z0))
        targets = torch.stack([torch.matrix_exp(observed * (t - self.t0)) @ z0 for t in ts[1:]])
        return LinearProblem("A", matrix, z0, ts, targets, 1 / self.num_observations)

    def mistakes(self) -> dict[str, Gradients]:
        """The gradients that known mistakes give, by the clause that names each."""
        problem, places = self.problem(), torch.eye(self.num_observations, dtype=torch.bool)
        true, missing = problem.closed_form().gradients, {}
        if self.num_observations > 2:
            missing[FORGOTTEN] = ~places[-1]
        for place, t in zip(places, problem.ts[1:].tolist(), strict=True):
            missing[f"the jump at t = {t:g} is missing"] = place
        mistakes = {WRONG_SIGN: problem.closed_form(sign=-1).gradients}
        for clause, place in missing.items():  # a method that misses some jumps may still have dL/dt of their times
            gradients = problem.closed_form(jumps=problem.jumps().masked_fill(place[:, None], 0.0)).gradients
            kept = {f"dL/dt{i + 1}": true[f"dL/dt{i + 1}"] for i in place.nonzero().flatten().tolist()}
            mistakes |= {clause: gradients, f"{clause}, though not from dL/dt": {**gradients, **kept}}
        return mistakes

    def num_measurements(self, cases: Sequence[Case]) -> int:
        """See `AuditProblem`."""
        return num_measurements(cases) + 1 + len(set(self.euler_steps))

    def audit(self, cases: Sequence[Case], tick: Tick) -> AuditReport:
        """See `AuditProblem`."""
        problem, mistakes = self.problem(), self.mistakes()
        results = measure(problem, cases, problem.ts, mistakes, tick)
        found, true = findings(results), results.true
        tick("the jumps of the adjoint")
        jumps = _jumps(results, results.tightest[0])
        euler = euler_errors(problem, true.gradients, sorted(set(self.euler_steps)), tick)
        last = self.num_observations
        columns = {name: [name] for name in ("dL/dA", "dL/dz0")}
        columns[f"dL/dt0..t{last} (largest)"] = [f"dL/dt{i}" for i in range(last + 1)]
        shown = {"wrong sign of the adjoint's ODE": WRONG_SIGN, "all jumps but the last one forgotten": FORGOTTEN}
        tables = [
            Table(self._title(), [{"": name, "closed form": _text(value)} for name, value in true.gradients.items()]),
            results.error_table(columns, {row: mistakes[name] for row, name in shown.items() if name in mistakes}),
            _jumps_table(jumps, results.tightest[0].case),
            euler_table(euler),
        ]
        curves, (states, adjoints) = draw_curves("dz/dt = A z, observed at many times", results)
        for i, observed in enumerate(problem.targets.T.tolist()):
            states.plot(problem.ts[1:].tolist(), observed, "x", color=f"C{i}", label=None if i else "observation")
        draw_over_time(adjoints, problem.closed_form(sign=-1).a, problem.ts, "wrong sign", "--")
        add_legend(curves)
        errors, axes = panels(3, title="Errors of the gradients: all solvers, and Euler's method")
        draw_gradient_errors(results, *axes[:2])
        draw_euler(axes[2], euler)
        details = results.details() | {
            "mistakes": {clause: plain(gradients) for clause, gradients in mistakes.items()},
            "jumps": [plain(jump) for jump in jumps],
            "euler": euler,
            "euler_orders": orders(euler),
            "verdict": [asdict(each) for each in found],
        }
        return AuditReport(tables, NOTES, verdict(found), {"linear": curves, "linear_errors": errors}, details)

    def _title(self) -> str:
        matrix = ", ".join(str(list(row)) for row in self.matrix)
        return (
            f"dz/dt = A z, A = [{matrix}], z({self.t0:g}) = {list(self.z0)}, "
            f"loss (1/N) sum |z_i - z(t_i)|^2 at N = {self.num_observations} times up to {self.t1:g}: closed form"
        )


def _jumps(results: Results, best: CaseResult) -> list[dict[str, Any]]:
    """At each observation: its partial derivative, and a just before and just after it, closed and computed."""
    jumps = []
    for i, partial in enumerate(results.problem.jumps(), start=1):
        t, before = results.times[i], results.true.a(results.times[i].item())
        after = results.problem.adjoint_at(best.case, best.zs[i][None], t, after_jump=True)[0]
        closed = {"t": t.item(), "partial": partial, "before": before, "after": before - partial}
        jumps.append(closed | {"computed_before": best.adjoints[i], "computed_after": after})
    return jumps


def _jumps_table(jumps: Sequence[dict[str, Any]], case: Case) -> Table:
    rows = [
        {"t_i": f"{jump['t']:g}"} | {column: _text(jump[key]) for key, column in JUMP_COLUMNS.items()} for jump in jumps
    ]
    return Table(f"The partial derivative dL/dz(t_i) is not the total one, a(t_i) (computed: {case.name})", rows)


def _text(value: Tensor) -> str:
    numbers = ", ".join(f"{each:+.6f}" for each in value.reshape(-1).tolist())
    return f"({numbers})" if value.numel() > 1 else numbers
