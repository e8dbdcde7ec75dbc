"""Which methods agree with a closed form, and what is wrong with the others: one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.figure import Figure

from node_cli.audit.base import AuditReport
from node_cli.audit.closed_form import CaseResult, Results
from node_cli.audit.comparison import difference, what_is_wrong
from node_cli.tables import Table, percent

SLACK = 100  # an error of so many tolerances, or errors of the steps, is none of the method
ROUNDING = 1e-12
CLEAR = 0.1  # beyond this error a method does not agree, whatever its tolerance
COARSE = 3  # beyond this many times the error of coarse steps, it is not they that are to blame
EXACT = 1e-8  # a method this near to the exact gradient of its steps has it


@dataclass(frozen=True)
class Finding:
    """A method at its tightest tolerance. Relative errors: its own, and that of its steps (None: not known).

    `kind` is `right`; `exact`, the gradient of steps that are themselves far from the closed form; `unclear`, an error
    that steps as coarse may have; or `wrong`, where `reason` is a clause.
    """

    method: str
    rtol: float | None
    error: float
    steps_error: float | None
    kind: str
    reason: str = ""


def closed_form_report(
    results: Results,
    tables: Sequence[Table],
    notes: Sequence[str],
    figures: Mapping[str, Figure],
    details: Mapping[str, Any],
) -> AuditReport:
    """The report, with a verdict on each method as far as tolerance and steps allow, and known mistakes explain."""
    found = [_finding(results, each) for each in results.tightest]
    all_details = {**results.details(), **details, "verdict": [asdict(each) for each in found]}
    return AuditReport(tables, notes, _verdict(found), figures, all_details)


def _finding(results: Results, result: CaseResult) -> Finding:
    case, computed, true = result.case, result.gradients, results.true.gradients
    found = difference(computed, true)
    error, steps_error, is_exact = found.relative_error, None, False
    if steps := results.steps.get(case.steps):
        steps_error = difference(steps.exact, true).relative_error
        is_exact = difference(computed, steps.exact).relative_error <= EXACT
    allowed = SLACK * max(case.rtol or 0.0, steps_error or 0.0, ROUNDING)
    kind, reason = "wrong", ""
    if error <= min(allowed, CLEAR):
        kind = "right"
    elif is_exact:
        kind = "exact"
    elif clause := what_is_wrong(computed, true, results.mistakes):
        reason = clause
    elif error <= min(allowed, max(CLEAR, COARSE * (steps_error or 0.0))):
        kind = "unclear"
    else:
        reason = f"it is {percent(error)} off, most of all {found.worst}"
    return Finding(case.method, case.rtol, error, steps_error, kind, reason)


def _verdict(found: Sequence[Finding]) -> str:
    """One sentence about all methods."""
    rtols = dict.fromkeys(each.rtol for each in found)
    right = [[each for each in found if each.kind == "right" and each.rtol == rtol] for rtol in rtols]
    clauses = [_agreement(group) for group in right if group]
    clauses += [_coarse(each) for each in found if each.kind in ("exact", "unclear")]
    missing = "does not" if clauses else "does not agree with the closed form"
    clauses += [f"{each.method} {missing}: {each.reason}" for each in found if each.kind == "wrong"]
    return "; ".join(clauses) + "."


def _agreement(group: Sequence[Finding]) -> str:
    error, rtol = percent(max(each.error for each in group)), group[0].rtol
    *others, last = [each.method for each in group]
    methods = f"{', '.join(others)} and {last} agree" if others else f"{last} agrees"
    if rtol is None:
        return f"{methods} with the closed form as far as the fixed steps do (within {error})"
    return f"{methods} with the closed form (within {error} at rtol {rtol:g})"


def _coarse(each: Finding) -> str:
    advice = "take more steps" if each.rtol is None else "take a tighter tolerance"
    if each.kind == "exact":
        return f"{each.method} is exact for the steps made, which are {percent(each.error)} off: {advice}"
    steps = "" if each.steps_error is None else f", its steps alone {percent(each.steps_error)}"
    return f"{each.method} is {percent(each.error)} off{steps}, too coarse to tell why: {advice}"
