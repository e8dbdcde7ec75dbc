"""Which methods agree with a closed form, and what is wrong with the others: one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from node_cli.audit.closed_form import Differentiated, Measured, Pass, pass_of
from node_cli.audit.comparison import Gradients, difference, what_is_wrong
from node_cli.tables import percent

SLACK = 100  # an error of so many tolerances, or errors of the steps, is none of the method
ROUNDING = 1e-12
CLEAR = 0.1  # beyond this error a method does not agree, whatever its tolerance
COARSE = 3  # beyond this many times the error of coarse steps, it is not they that are to blame
EXACT = 1e-8  # a method this near to the exact gradient of its pass has it


@dataclass(frozen=True)
class Judgement:
    """A method at its tightest tolerance. Relative errors: its own, and that of its steps (None: not known).

    `kind` is `right`; `exact`, the gradient of a pass that is itself far from the closed form; `unclear`, an error
    that steps as coarse may have; or `wrong`, where `reason` is a clause.
    """

    method: str
    rtol: float | None
    error: float
    steps_error: float | None
    kind: str
    reason: str

    def details(self) -> dict[str, Any]:
        """All of it, in plain containers."""
        return asdict(self)


def tightest(measured: Sequence[Measured]) -> list[Measured]:
    """Each method at its tightest tolerance."""
    by_method: dict[str, Measured] = {}
    for each in sorted(measured, key=lambda each: -(each.case.rtol or 0.0)):
        by_method[each.case.method] = each
    return [by_method[method] for method in dict.fromkeys(each.case.method for each in measured)]


def judge(
    measured: Measured, true: Gradients, passes: Mapping[Pass, Differentiated], mistakes: Mapping[str, Gradients]
) -> Judgement:
    """Against the closed form, as far as tolerance and steps allow, and against known mistakes."""
    case, computed = measured.case, measured.gradients
    found = difference(computed, true)
    made = passes.get(pass_of(case))
    steps_error = None if made is None else difference(made.exact, true).relative_error
    is_exact = made is not None and difference(computed, made.exact).relative_error <= EXACT
    allowed = SLACK * max(case.rtol or 0.0, steps_error or 0.0, ROUNDING)
    if found.relative_error <= min(allowed, CLEAR):
        kind, reason = "right", ""
    elif is_exact:
        kind, reason = "exact", ""
    elif clause := what_is_wrong(computed, true, mistakes):
        kind, reason = "wrong", clause
    elif found.relative_error <= min(allowed, max(CLEAR, COARSE * (steps_error or 0.0))):
        kind, reason = "unclear", ""
    else:
        kind, reason = "wrong", f"it is {percent(found.relative_error)} off, most of all {found.worst}"
    return Judgement(case.method, case.rtol, found.relative_error, steps_error, kind, reason)


def verdict(judgements: Sequence[Judgement]) -> str:
    """One sentence about all methods."""
    rtols = dict.fromkeys(each.rtol for each in judgements)
    right = [[each for each in judgements if each.kind == "right" and each.rtol == rtol] for rtol in rtols]
    clauses = [_agreement(group) for group in right if group]
    clauses += [_coarse(each) for each in judgements if each.kind in ("exact", "unclear")]
    missing = "does not" if clauses else "does not agree with the closed form"
    clauses += [f"{each.method} {missing}: {each.reason}" for each in judgements if each.kind == "wrong"]
    return "; ".join(clauses) + "."


def _agreement(group: Sequence[Judgement]) -> str:
    error, rtol = percent(max(each.error for each in group)), group[0].rtol
    *others, last = [each.method for each in group]
    methods = f"{', '.join(others)} and {last} agree" if others else f"{last} agrees"
    if rtol is None:
        return f"{methods} with the closed form as far as the fixed steps do (within {error})"
    return f"{methods} with the closed form (within {error} at rtol {rtol:g})"


def _coarse(each: Judgement) -> str:
    advice = "take more steps" if each.rtol is None else "take a tighter tolerance"
    if each.kind == "exact":
        return f"{each.method} is exact for the steps made, which are {percent(each.error)} off: {advice}"
    steps = "" if each.steps_error is None else f", its steps alone {percent(each.steps_error)}"
    return f"{each.method} is {percent(each.error)} off{steps}, too coarse to tell why: {advice}"
