"""dz/dt = A z in two dimensions, with a squared loss at many times: how the adjoint jumps, and Euler against exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, repeat
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from node_cli.audit.base import AuditReport, Case, Tick
from node_cli.audit.closed_form import (
    WRONG_SIGN,
    CaseResult,
    Results,
    draw_curves,
    draw_gradient_errors,
    measure,
    num_measurements,
    plain,
)
from node_cli.audit.closed_form_verdict import closed_form_report
from node_cli.audit.comparison import Gradients, difference, draw_errors, number_counts, order
from node_cli.audit.linear_problem import LinearProblem
from node_cli.figures import panels
from node_cli.ode.checks import require
from node_cli.ode.functional import odeint
from node_cli.tables import Table, two_digits

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
    (
        "Under Euler's method z_k = (I + h A)^k z0. direct differentiates this product (discretise, then optimise), "
        "adjoint solves da/dt = -A^T a by Euler too (optimise, then discretise): a third gradient, beside that of the "
        "product and that of the ODE; all three meet as the steps shrink."
    ),
)
JUMP_COLUMNS = {
    "partial": "partial (the jump)",
    "before": "total, before t_i",
    "after": "total, after t_i",
    "computed_before": "computed, before",
    "computed_after": "computed, after",
}

EULER_COLUMNS = {
    "direct_discrete": "direct - exact discrete",
    "direct_continuous": "direct - ODE",
    "adjoint_continuous": "adjoint - ODE",
    "adjoint_discrete": "adjoint - exact discrete",
}
EulerErrors = dict[str, float]  # `steps` between two observations, and the relative error of each of EULER_COLUMNS


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
        true = results.true
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
        curves = draw_curves("dz/dt = A z, observed at many times", results, "wrong sign", shows_targets=True)
        errors, axes = panels(3, title="Errors of the gradients: all solvers, and Euler's method")
        draw_gradient_errors(results, *axes[:2])
        draw_euler(axes[2], euler)
        details = {
            "mistakes": {clause: plain(gradients) for clause, gradients in mistakes.items()},
            "jumps": [plain(jump) for jump in jumps],
            "euler": euler,
            "euler_orders": orders(euler),
        }
        return closed_form_report(results, tables, NOTES, {"linear": curves, "linear_errors": errors}, details)

    def _title(self) -> str:
        matrix = ", ".join(str(list(row)) for row in self.matrix)
        return (
            f"dz/dt = A z, A = [{matrix}], z({self.t0:g}) = {list(self.z0)}, "
            f"loss (1/N) sum |z_i - z(t_i)|^2 at N = {self.num_observations} times up to {self.t1:g}: closed form"
        )


def _jumps(results: Results, best: CaseResult) -> list[dict[str, Any]]:
    """At each observation: its partial derivative, and a just before and just after it, closed and computed."""
    jumps = []
    for i, jump in enumerate(results.problem.jumps(), start=1):
        t, before = results.times[i], results.true.a(results.times[i].item())
        after = results.problem.adjoint_at(best.case, best.zs[i][None], t, after_jump=True)[0]
        closed = {"t": t.item(), "partial": jump, "before": before, "after": before - jump}
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


def euler_gradients(problem: LinearProblem, steps: int) -> Gradients:
    """The exact gradients of the discrete problem z_{k+1} = (I + h A) z_k, with `steps` between two observations.

    In powers of B = I + h A: a_k = sum over the observations from k on of (B^T)^{n_i - k} g_i. The observations are at
    equal distances.
    """
    matrix, count = problem.matrix, steps * len(problem.targets)
    h = float(problem.ts[-1] - problem.ts[0]) / count
    identity = torch.eye(len(matrix), dtype=matrix.dtype)
    powers = torch.stack(list(accumulate(repeat(identity + h * matrix, count), torch.matmul, initial=identity)))
    zs = powers @ problem.z0
    g = 2 * problem.weight * (zs[steps::steps] - problem.targets)
    adjoints = torch.zeros_like(zs)
    for n, g_i in zip(range(steps, count + 1, steps), g, strict=True):
        adjoints[: n + 1] += g_i @ powers[: n + 1].flip(0)
    of_matrix = h * adjoints[1:].T @ zs[:-1]
    # Each of the steps between t_{i-1} and t_i is longer by 1/steps of what t_i - t_{i-1} is.
    of_lengths = torch.einsum("ka,ab,kb->k", adjoints[1:], matrix, zs[:-1]).reshape(-1, steps).mean(1)
    zero = of_lengths.new_zeros(1)
    return problem.named(of_matrix, adjoints[0], torch.cat([zero, of_lengths]) - torch.cat([of_lengths, zero]))


def euler_errors(problem: LinearProblem, true: Gradients, counts: Sequence[int], tick: Tick) -> list[EulerErrors]:
    """Under Euler with each of these numbers of steps, with a tick before; `true` are the gradients of the ODE."""
    errors = []
    for steps in counts:
        tick(f"Euler with {steps} steps")
        euler, discrete = partial(odeint, method="euler", num_steps=steps), euler_gradients(problem, steps)
        direct, adjoint = (problem.gradients(partial(euler, gradient=name)) for name in ("direct", "adjoint"))
        pairs = ((direct, discrete), (direct, true), (adjoint, true), (adjoint, discrete))
        found = [difference(*pair).relative_error for pair in pairs]
        errors.append({"steps": steps} | dict(zip(EULER_COLUMNS, found, strict=True)))
    return errors


def orders(euler: Sequence[EulerErrors]) -> dict[str, float]:
    """How fast the gradients under Euler near the continuous one."""
    steps = [each["steps"] for each in euler]
    return {name: order(steps, [each[f"{name}_continuous"] for each in euler]) for name in ("direct", "adjoint")}


def euler_table(euler: Sequence[EulerErrors]) -> Table:
    """A row for each number of steps, and the orders."""
    title = (
        "Euler's method, steps between two observations: relative differences of gradients "
        "(order against the ODE: direct {direct:.2f}, adjoint {adjoint:.2f})"
    )
    rows = [
        {"steps": str(each["steps"])} | {column: two_digits(each[key]) for key, column in EULER_COLUMNS.items()}
        for each in euler
    ]
    return Table(title.format(**orders(euler)), rows)


def draw_euler(axes: Axes, euler: Sequence[EulerErrors]) -> None:
    """How the gradients meet as the steps shrink."""
    names = {
        f"direct, order {orders(euler)['direct']:.2f}": "direct_continuous",
        f"adjoint, order {orders(euler)['adjoint']:.2f}": "adjoint_continuous",
        "adjoint against direct": "adjoint_discrete",
    }
    curves = {name: [(each["steps"], each[key]) for each in euler] for name, key in names.items()}
    draw_errors(axes, "Euler's gradients", "steps between two observations", curves)
    number_counts(axes)
