"""A few sentences on the cases of a model: which to use, and what is wrong with the others.

They rest on errors and counts alone: seconds, which depend on what else the machine does, are in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from node_cli.audit.model_rows import ModelRow
from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.tables import percent

# Up to here, or to twice what rounding alone does, a gradient counts as exact. Rounding carries states over the kinks
# of ReLU, where the gradient jumps: how often is chance.
EXACT = 0.01


@dataclass(frozen=True)
class Verdict:
    """Of the gradients that are exact for their pass and within `accepted_error` of the ODE's, the best is the one with
    the fewest evaluations, forward and backward.

    If there is none, it is the one nearest to the ODE's, exact ones first.
    """

    rows: Sequence[ModelRow]
    accepted_error: float

    def sentences(self) -> str:
        """One on the best method, and one on each of the others."""
        solved = [row for row in self.rows if row.made is not None]
        if not solved:
            return f"No case could be solved; the first: {self.rows[0].failure}"
        best = self.best(solved)
        methods = [list(rows) for _, rows in groupby(self.rows, key=lambda row: row.case.method)]
        others = [self._of_others(best, rows) for rows in methods if rows[0].case.method != best.case.method]
        return " ".join(f"{part}." for part in [self._of_best(best), *others])

    def best(self, solved: Sequence[ModelRow]) -> ModelRow:
        """The row to use."""
        exact = [row for row in solved if self.is_exact(row)]
        near = [row for row in exact if _ode_error(row) <= self.accepted_error]
        if near:
            return min(near, key=_evaluations)
        return min(exact or solved, key=_ode_error)

    def is_exact(self, row: ModelRow) -> bool:
        """Whether the gradient is that of the loss that was computed, up to rounding, and complete."""
        return row.against_pass is not None and not row.mistake and _pass_error(row) <= max(EXACT, 2 * row.rounding)

    def _of_best(self, best: ModelRow) -> str:
        start = f"Use {best.case.name}"
        if _ode_error(best) > self.accepted_error:
            start = f"None is within {percent(self.accepted_error)} of the ODE's gradient, {best.case.name} is nearest"
        kind = "the gradient of the loss computed"
        if best.exact is None:
            kind = "no exact gradient of its pass to compare with"
        elif not self.is_exact(best):
            kind = f"not {kind} ({self._fault([best])})"
        failed = [f"{row.case.rtol:g}" for row in self.rows if row.case.method == best.case.method and row.made is None]
        fails = f"; at {' and '.join(failed)} its solve fails" if failed else ""
        price = f"for {_evaluations(best)} evaluations a pass"
        return f"{start}: {kind}, {percent(_ode_error(best))} off that of the ODE, {price}{fails}"

    def _of_others(self, best: ModelRow, rows: Sequence[ModelRow]) -> str:
        """What there is to say of another method, over its tolerances."""
        method = rows[0].case.method
        solved = [row for row in rows if row.made is not None]
        if not solved:
            return f"{method} cannot be solved ({rows[0].failure})"
        if solved[0].exact is None:
            return f"{method} is {_range(solved, _ode_error)} off the gradient of the ODE"
        if all(self.is_exact(row) for row in solved):
            nearest = next((row for row in solved if row.case.rtol == best.case.rtol), solved[-1])
            return f"{nearest.case.name} is exact too, for {_evaluations(nearest)}"
        return f"{method} is not exact: {self._fault(solved)}"

    def _fault(self, rows: Sequence[ModelRow]) -> str:
        """What is wrong with a method; named if it is a known mistake."""
        mistake = next((row.mistake for row in rows if row.mistake), "")
        if mistake:
            return mistake
        fault = f"off by {_range(rows, _pass_error)}"
        if isinstance(rows[0].case.gradient, Adjoint):
            remedy = "take more steps" if rows[0].case.rtol is None else "tighten gradient.rtol and gradient.atol"
            return f"{fault}, the error of its second solve ({remedy})"
        return fault


def _pass_error(row: ModelRow) -> float:
    assert row.against_pass is not None
    return row.against_pass.relative_error


def _ode_error(row: ModelRow) -> float:
    assert row.against_ode is not None
    return row.against_ode.relative_error


def _evaluations(row: ModelRow) -> int:
    assert row.cost is not None
    return row.cost.nfe_forward + row.cost.nfe_backward


def _range(rows: Sequence[ModelRow], error: Callable[[ModelRow], float]) -> str:
    """From the first tolerance to the last."""
    ends = [rows[0], *rows[1:][-1:]]
    said = [percent(error(row)) + ("" if row.case.rtol is None else f" at {row.case.rtol:g}") for row in ends]
    return " to ".join(said)
