"""One sentence on the cases of a model: which to use, what it costs, and what was wrong with the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from node_cli.analysis.audit.model_rows import ModelRow
from node_cli.analysis.audit.report import percent
from node_cli.ode.gradients.adjoint import Adjoint

# A gradient counts as exact up to here: rounding carries states over the kinks of ReLU, where the gradient jumps.
ROUNDING = {"float32": 0.01, "bfloat16": 0.3}


@dataclass(frozen=True)
class Verdict:
    """Of the gradients that are exact for their pass and within `accepted_error` of the ODE's, the fastest is the best.

    Where none is, the one that comes nearest to the ODE's, exact ones first.
    """

    rows: Sequence[ModelRow]
    accepted_error: float
    precision: str

    def sentence(self) -> str:
        """The sentence; its parts are divided by semicolons."""
        solved = [row for row in self.rows if row.made is not None]
        if not solved:
            return f"No case could be solved; the first: {self.rows[0].failure}"
        best = self.best(solved)
        methods = [list(rows) for _, rows in groupby(self.rows, key=lambda row: row.case.method)]
        others = [self._of_others(best, rows) for rows in methods if rows[0].case.method != best.case.method]
        return "; ".join(part for part in [*self._of_best(best), *others] if part) + "."

    def best(self, solved: Sequence[ModelRow]) -> ModelRow:
        """The row to use."""
        exact = [row for row in solved if self.is_exact(row)]
        near = [row for row in exact if _ode_error(row) <= self.accepted_error]
        if near:
            return min(near, key=_seconds)
        return min(exact or solved, key=_ode_error)

    def is_exact(self, row: ModelRow) -> bool:
        """Whether the gradient is that of the loss that was computed, up to rounding, and complete."""
        return row.against_pass is not None and not row.mistake and self._pass_error(row) <= ROUNDING[self.precision]

    def _of_best(self, best: ModelRow) -> list[str]:
        start = f"Use {best.case.name}"
        if _ode_error(best) > self.accepted_error:
            start = f"None is within {percent(self.accepted_error)} of the ODE's gradient, {best.case.name} is nearest"
        fault = "" if self.is_exact(best) else f" ({self._fault([best])})"
        kind = (
            f"not the gradient of the loss that was computed{fault}" if fault else "the gradient of the loss computed"
        )
        said = [f"{start}: {kind}, {percent(_ode_error(best))} from that of the ODE, for {_price(best)}"]
        for row in self.rows:
            if row.case.method == best.case.method and row is not best and row.made is not None:
                times = (
                    f", in {_seconds(row) / _seconds(best):.2g} times the time"
                    if _ode_error(row) < _ode_error(best)
                    else ""
                )
                said.append(f"at {row.case.rtol:g} it would be {percent(_ode_error(row))}{times}")
        return said

    def _of_others(self, best: ModelRow, rows: Sequence[ModelRow]) -> str:
        """What there is to say of another method, over its tolerances."""
        method = rows[0].case.method
        solved = [row for row in rows if row.made is not None]
        if not solved:
            return f"{method} cannot be solved ({rows[0].failure})"
        if all(self.is_exact(row) for row in solved):
            nearest = next((row for row in solved if row.case.rtol == best.case.rtol), solved[-1])
            return f"{nearest.case.name} is exact too, for {_price(nearest)}"
        return f"{method} is not: {self._fault(solved)}"

    def _fault(self, rows: Sequence[ModelRow]) -> str:
        """What is wrong with a method; named if it is a known mistake."""
        mistake = next((row.mistake for row in rows if row.mistake), "")
        if mistake:
            return mistake
        if rows[0].exact is None:
            return f"the exact gradient of its pass cannot be had; {_list(rows, _ode_error)} from that of the ODE"
        fault = f"off by {_list(rows, self._pass_error)}"
        if isinstance(rows[0].case.gradient, Adjoint):
            return f"{fault}, the error of its second solve (tighten gradient.rtol and gradient.atol)"
        return fault

    def _pass_error(self, row: ModelRow) -> float:
        assert row.against_pass is not None
        return row.against_pass.relative_error


def _ode_error(row: ModelRow) -> float:
    assert row.against_ode is not None
    return row.against_ode.relative_error


def _seconds(row: ModelRow) -> float:
    assert row.cost is not None
    return row.cost.seconds


def _price(row: ModelRow) -> str:
    assert row.cost is not None
    memory = "" if row.cost.peak_bytes is None else f" and {row.cost.peak_bytes / 2**20:.0f} MB"
    evaluations = f"{row.cost.nfe_forward} + {row.cost.nfe_backward} evaluations"
    return f"{evaluations}, {row.cost.seconds:.2g} s{memory} a pass"


def _list(rows: Sequence[ModelRow], error: Callable[[ModelRow], float]) -> str:
    return ", ".join(percent(error(row)) + ("" if row.case.rtol is None else f" at {row.case.rtol:g}") for row in rows)
