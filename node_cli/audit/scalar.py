"""dz/dt = alpha z with loss (z(t1) - 1)^2 / 2: all gradients in closed form, and the slip that is often made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from node_cli.audit.base import AuditReport, Tick
from node_cli.audit.case import Case
from node_cli.audit.closed_form import (
    WRONG_SIGN,
    ClosedForm,
    Differentiated,
    Measured,
    Pass,
    Problem,
    details_of,
    differentiate_passes,
    error_rows,
    measure_all,
    num_measurements,
)
from node_cli.audit.closed_form_pictures import add_legend, draw_both_errors, draw_curves, draw_over_time
from node_cli.audit.closed_form_verdict import judge, tightest, verdict
from node_cli.figures import panels
from node_cli.ode.checks import require
from node_cli.tables import Table

_NUM_TIMES = 7  # at which z(t) and a(t) are compared
_MAX_EXPONENT = 50
_COLUMNS = {name: [name] for name in ("dL/dalpha", "dL/dz0", "dL/dt0", "dL/dt1")}
_SLIP = "the classic slip"


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
        require(
            abs(exponent) <= _MAX_EXPONENT, f"alpha (t1 - t0) must be within {_MAX_EXPONENT} of 0 for float64", exponent
        )
        require(self._z(self.t1) != 1, "z0 must be one for which z(t1) is not 1, where all gradients are 0", self.z0)

    def num_measurements(self, cases: Sequence[Case]) -> int:
        """See `AuditProblem`."""
        return num_measurements(cases)

    def audit(self, cases: Sequence[Case], tick: Tick) -> AuditReport:
        """See `AuditProblem`."""
        problem, true, slip = self.problem(), self.closed_form(), self.slip()
        times = torch.linspace(self.t0, self.t1, _NUM_TIMES, dtype=torch.float64)
        measured = measure_all(problem, cases, times, tick)
        passes = differentiate_passes(problem, cases, tick)
        judgements = [judge(each, true.gradients, passes, {WRONG_SIGN: slip.gradients}) for each in tightest(measured)]
        details = details_of(problem, true, measured, passes, times) | {
            "slip": {name: gradient.tolist() for name, gradient in slip.gradients.items()},
            "verdict": [each.details() for each in judgements],
        }
        pictures = self._pictures(true, slip, measured, times)
        tables = self._tables(true, slip, measured, passes, times)
        return AuditReport(tables, [_note(true, slip)], verdict(judgements), pictures, details)

    def problem(self) -> Problem:
        """What is solved: one state, one observation."""
        one = torch.ones(1, 1, dtype=torch.float64)
        ts = torch.tensor([self.t0, self.t1], dtype=torch.float64)
        return Problem("alpha", self.alpha * one, self.z0 * one[0], ts, targets=one, weight=0.5)

    def closed_form(self) -> ClosedForm:
        """z(t) = z0 e^{alpha (t - t0)} and a(t) = (z(t1) - 1) e^{alpha (t1 - t)}."""
        z1, span = self._z(self.t1), self.t1 - self.t0
        return self._form(sign=1, of_alpha=(z1 - 1) * span * z1)

    def slip(self) -> ClosedForm:
        """What comes out when da/dt = +alpha a is solved in place of da/dt = -alpha a."""
        z1, span = self._z(self.t1), self.t1 - self.t0
        return self._form(sign=-1, of_alpha=(z1 - 1) * self.z0 * math.sinh(self.alpha * span) / self.alpha)

    def _z(self, t: float) -> float:
        return self.z0 * math.exp(self.alpha * (t - self.t0))

    def _form(self, sign: int, of_alpha: float) -> ClosedForm:
        """With a(t) = (z(t1) - 1) e^{sign alpha (t1 - t)}, and the integral of a z over time."""
        z1 = self._z(self.t1)

        def a(t: float) -> float:
            return (z1 - 1) * math.exp(sign * self.alpha * (self.t1 - t))

        times = torch.tensor([-a(self.t0) * self.alpha * self.z0, (z1 - 1) * self.alpha * z1], dtype=torch.float64)
        gradients = self.problem().named(_tensor(of_alpha)[None], _tensor(a(self.t0)), times)
        return ClosedForm(gradients, lambda t: _tensor(self._z(t)), lambda t: _tensor(a(t)))

    def _tables(
        self,
        true: ClosedForm,
        slip: ClosedForm,
        measured: Sequence[Measured],
        passes: Mapping[Pass, Differentiated],
        times: Tensor,
    ) -> list[Table]:
        title = f"dz/dt = {self.alpha:g} z, z({self.t0:g}) = {self.z0:g}, loss (z({self.t1:g}) - 1)^2 / 2"
        values = {"closed form": true, f"{_SLIP} (a(t) of the wrong sign in its ODE)": slip}
        rows = [
            {"": name, **{column: f"{form.gradients[column].item():+.8f}" for column in _COLUMNS}}
            for name, form in values.items()
        ]
        errors = error_rows(_COLUMNS, true, measured, passes, {_SLIP: slip.gradients}, times)
        return [Table(title, rows), Table("Relative errors", errors)]

    def _pictures(
        self, true: ClosedForm, slip: ClosedForm, measured: Sequence[Measured], times: Tensor
    ) -> dict[str, Figure]:
        title = f"dz/dt = {self.alpha:g} z"
        curves, (_, adjoints) = draw_curves(title, true, tightest(measured), times)
        draw_over_time(adjoints, slip.a, times, _SLIP, "--")
        add_legend(curves)
        errors, (by_rtol, by_nfe) = panels(2, title=title)
        draw_both_errors(by_rtol, by_nfe, true, measured)
        return {"scalar": curves, "scalar_errors": errors}


def _note(true: ClosedForm, slip: ClosedForm) -> str:
    values = [form.gradients["dL/dalpha"].item() for form in (slip, true)]
    return (
        "The classic slip: solved with the adjoint's sign wrong, da/dt = +alpha a gives a(t) = (z(t1) - 1) "
        "e^{alpha (t - t1)}, and the integral of a z, which is dL/dalpha, becomes (z(t1) - 1) z0 sinh(alpha (t1 - t0)) "
        f"/ alpha = {values[0]:.6g} instead of (z(t1) - 1)(t1 - t0) z(t1) = {values[1]:.6g}; "
        "dL/dt1 needs a at t1 alone, and is not harmed."
    )


def _tensor(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)
