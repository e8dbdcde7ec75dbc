"""dz/dt = A z in two dimensions, with a squared loss at many times: how the adjoint jumps, and Euler against exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.linalg import expm
from torch import Tensor

from node_cli.audit.base import AuditReport, Tick
from node_cli.audit.case import Case
from node_cli.audit.closed_form import (
    WRONG_SIGN,
    ClosedForm,
    Measured,
    Problem,
    details_of,
    differentiate_passes,
    error_rows,
    measure_all,
    num_measurements,
    plain,
)
from node_cli.audit.closed_form_pictures import (
    add_legend,
    draw_both_errors,
    draw_curves,
    draw_over_time,
)
from node_cli.audit.closed_form_verdict import judge, tightest, verdict
from node_cli.audit.comparison import Gradients
from node_cli.audit.linear_euler import EULER_NOTE, EulerErrors, draw_euler, euler_errors, euler_table, orders
from node_cli.figures import panels
from node_cli.ode.checks import require
from node_cli.tables import Table

Array = NDArray[np.float64]

_MAX_EXPONENT = 50
_FORGOTTEN = "the jumps are missing (only the last observation hands anything over)"


@dataclass(frozen=True)
class JumpAt:
    """At the observation at `t`: its partial derivative, and a just before and just after it, closed and computed."""

    t: float
    partial: Tensor
    before: Tensor
    after: Tensor
    computed_before: Tensor
    computed_after: Tensor


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
        require(
            exponent <= _MAX_EXPONENT, f"matrix and observed times t1 - t0 must be within {_MAX_EXPONENT}", exponent
        )
        require(bool(self._residuals().any()), "observed must lead to other states than matrix", self.observed)

    def num_measurements(self, cases: Sequence[Case]) -> int:
        """See `AuditProblem`."""
        return num_measurements(cases) + 1 + len(set(self.euler_steps))

    def audit(self, cases: Sequence[Case], tick: Tick) -> AuditReport:
        """See `AuditProblem`."""
        problem, true, mistakes = self.problem(), self.closed_form(), self.mistakes()
        times = problem.ts
        measured = measure_all(problem, cases, times, tick)
        passes = differentiate_passes(problem, cases, tick)
        best = tightest(measured)
        tick("the jumps of the adjoint")
        jumps = self._jumps(problem, true, best[0])
        euler = euler_errors(problem, true.gradients, sorted(set(self.euler_steps)), tick)
        judgements = [judge(each, true.gradients, passes, mistakes) for each in best]
        rows = error_rows(self._columns(), true, measured, passes, _shown(mistakes), times)
        tables = [
            self._values(true),
            Table("Relative errors", rows),
            _jumps_table(jumps, best[0].case),
            euler_table(euler),
        ]
        details = details_of(problem, true, measured, passes, times) | {
            "mistakes": {clause: plain(gradients) for clause, gradients in mistakes.items()},
            "jumps": [plain(vars(jump)) for jump in jumps],
            "euler": [vars(each) for each in euler],
            "euler_orders": orders(euler),
            "verdict": [each.details() for each in judgements],
        }
        pictures = {"linear": self._picture(true, best, times), "linear_errors": _draw_errors(true, measured, euler)}
        return AuditReport(tables, _notes(), verdict(judgements), pictures, details)

    def problem(self) -> Problem:
        """What is solved."""
        ts = torch.tensor(self._times(), dtype=torch.float64)
        targets = torch.from_numpy(self._states(self.observed))
        matrix, z0 = (torch.tensor(value, dtype=torch.float64) for value in (self.matrix, self.z0))
        return Problem("A", matrix, z0, ts, targets, 1 / self.num_observations)

    def closed_form(self) -> ClosedForm:
        """z(t) = e^{A (t - t0)} z0 and a(t) = sum over the t_i from t on of e^{A^T (t_i - t)} g_i."""
        return self._form(self.handed_over(), sign=1)

    def slip(self) -> ClosedForm:
        """What comes out when da/dt = +A^T a is solved in place of da/dt = -A^T a."""
        return self._form(self.handed_over(), sign=-1)

    def handed_over(self) -> Array:
        """The partial derivatives g_i = 2/N (z(t_i) - z_i), by which a jumps, `(N, 2)`."""
        return 2 / self.num_observations * self._residuals()

    def mistakes(self) -> dict[str, Gradients]:
        """The gradients that known mistakes give, by the clause that names each."""
        places, true = np.eye(self.num_observations, dtype=bool), self.closed_form().gradients
        mistakes = {WRONG_SIGN: self.slip().gradients}
        if self.num_observations > 2:
            mistakes |= self._missing(~places[-1], true, _FORGOTTEN)
        for place, t in zip(places, self._times()[1:], strict=True):
            mistakes |= self._missing(place, true, f"the jump at t = {t:g} is missing")
        return mistakes

    def _missing(self, places: NDArray[np.bool_], true: Gradients, clause: str) -> dict[str, Gradients]:
        """Without some jumps; a method that misses them may still have the gradients of their times."""
        gradients = self._form(np.where(places[:, None], 0.0, self.handed_over()), sign=1).gradients
        kept = {f"dL/dt{i + 1}": true[f"dL/dt{i + 1}"] for i in np.flatnonzero(places)}
        return {clause: gradients, f"{clause}, though not from dL/dt": {**gradients, **kept}}

    def _times(self) -> list[float]:
        return [float(t) for t in np.linspace(self.t0, self.t1, self.num_observations + 1)]

    def _states(self, matrix: Sequence[Sequence[float]]) -> Array:
        """At the times of the observations, where `matrix` is A."""
        return np.stack([expm(np.array(matrix) * (t - self.t0)) @ self.z0 for t in self._times()[1:]])

    def _residuals(self) -> Array:
        return np.asarray(self._states(self.matrix) - self._states(self.observed))

    def _form(self, g: Array, sign: int) -> ClosedForm:
        """With what the observations hand over, and da/dt = -sign A^T a between them."""
        matrix, z0, times = np.array(self.matrix), np.array(self.z0), self._times()
        direction = np.sign(self.t1 - self.t0)

        def z(t: float) -> Array:
            return np.asarray(expm(matrix * (t - self.t0)) @ z0)

        def a(t: float) -> Array:
            later = [(t_i, g_i) for t_i, g_i in zip(times[1:], g, strict=True) if (t_i - t) * direction >= 0]
            return sum((expm(sign * matrix.T * (t_i - t)) @ g_i for t_i, g_i in later), np.zeros(2))

        spans = [t_i - self.t0 for t_i in times[1:]]
        of_matrix = sum(
            product_integral(sign * matrix.T, np.outer(g_i, z0), matrix.T, span)
            for g_i, span in zip(g, spans, strict=True)
        )
        of_times = [-a(self.t0) @ matrix @ z0, *(g_i @ matrix @ z(t_i) for g_i, t_i in zip(g, times[1:], strict=True))]
        parts = (torch.tensor(np.array(part)) for part in (of_matrix, a(self.t0), of_times))
        return ClosedForm(
            self.problem().named(*parts), lambda t: torch.from_numpy(z(t)), lambda t: torch.from_numpy(a(t))
        )

    def _jumps(self, problem: Problem, true: ClosedForm, measured: Measured) -> list[JumpAt]:
        jumps = []
        for i, jump in enumerate(torch.from_numpy(self.handed_over()), start=1):
            t = problem.ts[i]
            after = problem.adjoint_at(measured.case, measured.zs[i][None], t, after_jump=True)[0]
            before = true.a(float(t))
            jumps.append(JumpAt(float(t), jump, before, before - jump, measured.adjoints[i], after))
        return jumps

    def _columns(self) -> dict[str, list[str]]:
        last = self.num_observations
        times = [f"dL/dt{i}" for i in range(last + 1)]
        return {"dL/dA": ["dL/dA"], "dL/dz0": ["dL/dz0"], f"dL/dt0..t{last} (largest)": times}

    def _values(self, true: ClosedForm) -> Table:
        matrix = ", ".join(str(list(row)) for row in self.matrix)
        title = (
            f"dz/dt = A z, A = [{matrix}], z({self.t0:g}) = {list(self.z0)}, "
            f"loss (1/N) sum |z_i - z(t_i)|^2 at N = {self.num_observations} times up to {self.t1:g}: closed form"
        )
        return Table(title, [{"": name, "closed form": _text(value)} for name, value in true.gradients.items()])

    def _picture(self, true: ClosedForm, best: Sequence[Measured], times: Tensor) -> Figure:
        figure, (states, adjoints) = draw_curves("dz/dt = A z, observed at many times", true, best, times)
        for i, observed in enumerate(self.problem().targets.T.tolist()):
            states.plot(times[1:].tolist(), observed, "x", color=f"C{i}", label=None if i else "observation")
        draw_over_time(adjoints, self.slip().a, times, "wrong sign", "--")
        add_legend(figure)
        return figure


def product_integral(left: Array, middle: Array, right: Array, span: float) -> Array:
    """The integral of e^{left (span - s)} middle e^{right s} over s from 0 to `span`.

    With left = right, the Frechet derivative of the matrix exponential at `left * span` in direction `middle * span`.
    Source: Van Loan 1978, "Computing integrals involving the matrix exponential", IEEE Trans. Automat. Control 23(3).
    """
    size = len(middle)
    block = np.block([[left, middle], [np.zeros_like(middle), right]])
    return np.asarray(expm(block * span)[:size, size:])


def _shown(mistakes: Mapping[str, Gradients]) -> dict[str, Gradients]:
    """The mistakes that have a row; a table of every single jump would be long."""
    rows = {"wrong sign of the adjoint's ODE": WRONG_SIGN, "all jumps but the last one forgotten": _FORGOTTEN}
    return {row: mistakes[clause] for row, clause in rows.items() if clause in mistakes}


def _jumps_table(jumps: Sequence[JumpAt], case: Case) -> Table:
    rows = [
        {
            "t_i": f"{jump.t:g}",
            "partial (the jump)": _text(jump.partial),
            "total, before t_i": _text(jump.before),
            "total, after t_i": _text(jump.after),
            "computed, before": _text(jump.computed_before),
            "computed, after": _text(jump.computed_after),
        }
        for jump in jumps
    ]
    return Table(f"The partial derivative dL/dz(t_i) is not the total one, a(t_i) (computed: {case.name})", rows)


def _draw_errors(true: ClosedForm, measured: Sequence[Measured], euler: Sequence[EulerErrors]) -> Figure:
    figure, (by_rtol, by_nfe, by_steps) = panels(3, title="Errors of the gradients: all solvers, and Euler's method")
    draw_both_errors(by_rtol, by_nfe, true, measured)
    draw_euler(by_steps, euler)
    return figure


def _notes() -> list[str]:
    return [
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
    ]


def _text(value: Tensor) -> str:
    numbers = ", ".join(f"{each:+.6f}" for each in value.reshape(-1).tolist())
    return f"({numbers})" if value.numel() > 1 else numbers
