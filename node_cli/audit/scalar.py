"""dz/dt = alpha z with loss (z(t1) - 1)^2 / 2: all gradients in closed form, and the slip that is often made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from node_cli.audit.base import AuditReport, Case, Tick
from node_cli.audit.closed_form import WRONG_SIGN, draw_curves, draw_gradient_errors, measure, num_measurements, plain
from node_cli.audit.closed_form_verdict import closed_form_report
from node_cli.audit.linear_problem import LinearProblem
from node_cli.figures import panels
from node_cli.ode.checks import require
from node_cli.tables import Table

NUM_TIMES = 7  # at which z(t) and a(t) are compared
MAX_EXPONENT = 50
NAMES = ("dL/dalpha", "dL/dz0", "dL/dt0", "dL/dt1")
SLIP = "the classic slip"


@dataclass(frozen=True, kw_only=True)
class ScalarAudit:
    """dz/dt = `alpha` z from `z0` at `t0`, with the loss (z(`t1`) - 1)^2 / 2."""

    alpha: float
    z0: float
    t0: float
    t1: float

    def __post_init__(self) -> None:
        require(self.alpha != 0, "alpha must be another number than 0", self.alpha)
        require(self.z0 != 0, "z0 must be another number than 0", self.z0)
        require(self.t1 != self.t0, f"t1 must be another time than t0 ({self.t0})", self.t1)
        exponent = self.alpha * (self.t1 - self.t0)
        within = f"alpha (t1 - t0) must be within {MAX_EXPONENT} of 0 for float64"
        require(abs(exponent) <= MAX_EXPONENT, within, exponent)
        moves = self.z0 * math.exp(exponent) != 1
        require(moves, "z0 must be one for which z(t1) is not 1, where all gradients are 0", self.z0)

    def problem(self) -> LinearProblem:
        """What is solved: one state, one observation."""
        alpha, z0, target = (torch.tensor([[value]], dtype=torch.float64) for value in (self.alpha, self.z0, 1.0))
        ts = torch.tensor([self.t0, self.t1], dtype=torch.float64)
        return LinearProblem("alpha", alpha, z0[0], ts, target, weight=0.5)

    def num_measurements(self, cases: Sequence[Case]) -> int:
        """See `AuditProblem`."""
        return num_measurements(cases)

    def audit(self, cases: Sequence[Case], tick: Tick) -> AuditReport:
        """See `AuditProblem`."""
        problem = self.problem()
        true, slip = problem.closed_form(), problem.closed_form(sign=-1)
        times = torch.linspace(self.t0, self.t1, NUM_TIMES, dtype=torch.float64)
        results = measure(problem, cases, times, {WRONG_SIGN: slip.gradients}, tick)
        values = {"closed form": true, f"{SLIP} (a(t) of the wrong sign in its ODE)": slip}
        rows = [
            {"": name} | {column: f"{form.gradients[column].item():+.8f}" for column in NAMES}
            for name, form in values.items()
        ]
        ode = f"dz/dt = {self.alpha:g} z"
        title = f"{ode}, z({self.t0:g}) = {self.z0:g}, loss (z({self.t1:g}) - 1)^2 / 2"
        tables = [Table(title, rows), results.error_table({name: [name] for name in NAMES}, {SLIP: slip.gradients})]
        curves = draw_curves(ode, results, SLIP)
        errors, axes = panels(2, title=ode)
        draw_gradient_errors(results, *axes)
        note = (
            "The classic slip: solved with the adjoint's sign wrong, da/dt = +alpha a gives a(t) = (z(t1) - 1) "
            "e^{alpha (t - t1)}, and the integral of a z, which is dL/dalpha, becomes (z(t1) - 1) z0 "
            f"sinh(alpha (t1 - t0)) / alpha = {slip.gradients['dL/dalpha'].item():.6g} instead of "
            f"(z(t1) - 1)(t1 - t0) z(t1) = {true.gradients['dL/dalpha'].item():.6g}; "
            "dL/dt1 needs a at t1 alone, and is not harmed."
        )
        figures, details = {"scalar": curves, "scalar_errors": errors}, {"slip": plain(slip.gradients)}
        return closed_form_report(results, tables, [note], figures, details)
