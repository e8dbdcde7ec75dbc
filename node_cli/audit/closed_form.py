"""What the cases of an audit make of a problem whose gradients are known in closed form: tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from node_cli.audit.base import Case, Tick
from node_cli.audit.comparison import Gradients, difference, draw_errors, errors_alone, hollow, number_counts
from node_cli.audit.fixed_steps import FixedSteps
from node_cli.audit.linear_problem import ClosedForm, LinearField, LinearProblem
from node_cli.figures import label_panel, panels
from node_cli.ode.base import VectorField
from node_cli.tables import Table, two_digits

WRONG_SIGN = "the adjoint's sign is wrong (it solves da/dt = +a df/dz)"


@dataclass(frozen=True, eq=False)
class CaseResult:
    """What a case makes of a problem; `zs` and `adjoints` are over time, `(times, d)`."""

    case: Case
    gradients: Gradients
    nfe_forward: int
    nfe_backward: int
    zs: Tensor
    adjoints: Tensor

    @property
    def nfe(self) -> int:
        """Evaluations, forward and backward."""
        return self.nfe_forward + self.nfe_backward


@dataclass(frozen=True, eq=False)
class StepsResult:
    """The steps that the solver of `case` makes: their exact gradients by autograd, and finite differences."""

    case: Case
    exact: Gradients
    finite: Gradients


@dataclass(frozen=True, eq=False)
class Results:
    """What all cases make of `problem`, with z(t) and a(t) at `times`; `steps` by `Case.steps`.

    `mistakes` are the gradients that known mistakes give, by the clause that names each.
    """

    problem: LinearProblem
    times: Tensor
    mistakes: Mapping[str, Gradients]
    cases: Sequence[CaseResult]
    steps: Mapping[str, StepsResult]

    @cached_property
    def true(self) -> ClosedForm:
        """What all are measured against."""
        return self.problem.closed_form()

    @property
    def tightest(self) -> list[CaseResult]:
        """Each method at its tightest tolerance."""
        loose_first = sorted(self.cases, key=lambda each: -(each.case.rtol or 0.0))
        by_method = {each.case.method: each for each in loose_first}
        return [by_method[method] for method in dict.fromkeys(each.case.method for each in self.cases)]

    def error_table(self, columns: Mapping[str, Sequence[str]], shown: Mapping[str, Gradients]) -> Table:
        """The relative errors of every case, of finite differences, and of the mistakes `shown` under their names.

        `columns` are the names of the gradients of which the largest error stands in the column.
        """

        def row(name: str, gradients: Gradients) -> dict[str, str]:
            errors = errors_alone(gradients, self.true.gradients)
            largest = {column: two_digits(max(errors[each] for each in names)) for column, names in columns.items()}
            return {"": name} | largest | dict.fromkeys(("a(t)", "z(t)", "evaluations"), "")

        zs, adjoints = over_time(self.true.z, self.times), over_time(self.true.a, self.times)
        rows = [
            row(each.case.name, each.gradients)
            | {"a(t)": _largest(each.adjoints, adjoints), "z(t)": _largest(each.zs, zs)}
            | {"evaluations": f"{each.nfe_forward} + {each.nfe_backward}"}
            for each in self.cases
        ]
        rows += [row(f"{name} finite differences", steps.finite) for name, steps in self.steps.items()]
        return Table("Relative errors", rows + [row(name, gradients) for name, gradients in shown.items()])

    def details(self) -> dict[str, Any]:
        """All numbers, in plain containers."""
        return {
            "closed_form": plain(self.true.gradients),
            "times": self.times.tolist(),
            "z": over_time(self.true.z, self.times).tolist(),
            "a": over_time(self.true.a, self.times).tolist(),
            "cases": [
                {
                    "solver": each.case.solver_name,
                    "gradient": each.case.gradient_name,
                    "rtol": each.case.rtol,
                    "gradients": plain(each.gradients),
                    "relative_errors": errors_alone(each.gradients, self.true.gradients),
                    "nfe_forward": each.nfe_forward,
                    "nfe_backward": each.nfe_backward,
                    "z": each.zs.tolist(),
                    "a": each.adjoints.tolist(),
                }
                for each in self.cases
            ],
            "passes": [
                {"solver": each.case.solver_name, "rtol": each.case.rtol}
                | {"exact": plain(each.exact), "finite_differences": plain(each.finite)}
                for each in self.steps.values()
            ],
        }


def num_measurements(cases: Sequence[Case]) -> int:
    """How often `measure` ticks."""
    return len(cases) + len(_steps_of(cases))


def measure(
    problem: LinearProblem, cases: Sequence[Case], times: Tensor, mistakes: Mapping[str, Gradients], tick: Tick
) -> Results:
    """Every case, and the steps of every solver that autograd can look through, with a tick before each."""
    results, steps = [], {}
    for case in cases:
        tick(case.name)
        results.append(solve_case(problem, case, times))
    for name, case in _steps_of(cases).items():
        tick(f"{name} by finite differences")
        taken = FixedSteps(case.solver, LinearField(problem.matrix), problem.z0[None], problem.ts)
        steps[name] = StepsResult(case, problem.gradients(taken), problem.finite_differences(taken))
    return Results(problem, times, mistakes, results, steps)


def solve_case(problem: LinearProblem, case: Case, times: Tensor) -> CaseResult:
    """The gradients of a case, with z(t) and a(t) at `times`."""
    solutions = []

    def solve(vector_field: VectorField[Tensor], z0: Tensor, ts: Tensor) -> Tensor:
        solutions.append(case.solve(vector_field, z0, ts))
        return solutions[-1].ys

    gradients = problem.gradients(solve)
    zs = [problem.state_at(case, t) for t in times]
    adjoints = [problem.adjoint_at(case, z, t) for z, t in zip(zs, times, strict=True)]
    nfe = solutions[0].stats.nfe, solutions[0].backward_stats.nfe
    return CaseResult(case, gradients, *nfe, torch.cat(zs), torch.cat(adjoints))


def over_time(function: Callable[[float], Tensor], times: Tensor) -> Tensor:
    """Its values `(times, d)`."""
    return torch.stack([function(t) for t in times.tolist()])


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """With lists in place of tensors."""
    return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}


def draw_curves(title: str, results: Results, slip: str, *, shows_targets: bool = False) -> Figure:
    """z(t) and a(t) in two panels: in closed form, with the wrong sign (which is called `slip`), and as computed."""
    figure, (states, adjoints) = panels(2, title=title)
    label_panel(states, "state z(t)", "t", "z")
    label_panel(adjoints, "adjoint a(t) = dL/dz(t)", "t", "a")
    _draw_over_time(states, results.true.z, results.times, "closed form")
    _draw_over_time(adjoints, results.true.a, results.times, "closed form")
    times = results.times.tolist()
    for index, each in enumerate(results.tightest):
        for axes, values in ((states, each.zs), (adjoints, each.adjoints)):
            for i, component in enumerate(values.T.tolist()):
                own = hollow(index) | {"color": f"C{i}", "label": None if i else each.case.method}
                axes.plot(times, component, linestyle="", **own)
    if shows_targets:
        for i, component in enumerate(results.problem.targets.T.tolist()):
            states.plot(times[1:], component, "x", color=f"C{i}", label=None if i else "observation")
    _draw_over_time(adjoints, results.problem.closed_form(sign=-1).a, results.times, slip, "--")
    labelled: dict[str, Artist] = {}
    for axes in (states, adjoints):
        handles, labels = axes.get_legend_handles_labels()
        labelled |= dict(zip(labels, handles, strict=True))
    figure.legend(list(labelled.values()), list(labelled), loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _draw_over_time(
    axes: Axes, function: Callable[[float], Tensor], ts: Tensor, name: str, linestyle: str = "-"
) -> None:
    """A line for each component, upright where it jumps at one of `ts`."""
    pieces = [np.linspace(start + 1e-9 * (end - start), end, 40) for start, end in pairwise(ts.tolist())]
    times = torch.tensor(np.concatenate(pieces))
    for i, component in enumerate(over_time(function, times).T.tolist()):
        color = f"C{i}" if linestyle == "-" else "0.5"
        axes.plot(times.tolist(), component, linestyle, color=color, label=None if i else name)


def draw_gradient_errors(results: Results, by_rtol: Axes, by_nfe: Axes) -> None:
    """The error of all gradients together, over the tolerance and over the evaluations: a line for each method."""
    places = ((by_rtol, "rtol", lambda each: each.case.rtol), (by_nfe, "evaluations, both ways", lambda each: each.nfe))
    for axes, xlabel, place in places:
        curves: dict[str, list[tuple[float, float]]] = {each.case.method: [] for each in results.cases}
        for each in results.cases:
            if place(each) is not None:
                error = difference(each.gradients, results.true.gradients).relative_error
                curves[each.case.method].append((place(each), error))
        draw_errors(axes, "error of the gradients", xlabel, curves)
    number_counts(by_nfe)


def _steps_of(cases: Sequence[Case]) -> dict[str, Case]:
    """A case for each of its `steps`: others of the same differ in their gradient methods alone."""
    return {case.steps: case for case in cases if case.solver.differentiable}


def _largest(computed: Tensor, true: Tensor) -> str:
    """The largest error over time, relative to the largest value."""
    return two_digits(float((computed - true).norm(dim=1).max() / true.norm(dim=1).max()))
