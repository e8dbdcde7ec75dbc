"""Linear problems whose gradients are known in closed form, and what the cases of an audit make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from node_cli.audit.base import Tick
from node_cli.audit.case import Case
from node_cli.audit.comparison import Gradients, errors_alone
from node_cli.audit.fixed_steps import FixedSteps
from node_cli.ode.base import VectorField
from node_cli.tables import two_digits

Solve = Callable[[VectorField[Tensor], Tensor, Tensor], Tensor]  # states at times from a state, differentiably
Pass = tuple[str, float | None]  # the name of a solver, and its tolerance

WRONG_SIGN = "the adjoint's sign is wrong (it solves da/dt = +a df/dz)"

_STENCIL = {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}  # the first derivative, order 4
_STEP = 1e-3  # of the finite differences, which are then good to about 1e-12


class LinearField(nn.Module):
    """dz/dt = A z for states `(1, d)`."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """The slope of `z`."""
        return z @ self.matrix.T


@dataclass(frozen=True, eq=False)
class Problem:
    """dz/dt = A z from `z0` `(d,)` at `ts[0]`, with loss `weight * sum_i |z(t_i) - targets_i|^2` over `ts[1:]`.

    `matrix` `(d, d)` is A, which is called `parameter`; `targets` `(N, d)` belong to the last N times. All is float64.
    """

    parameter: str
    matrix: Tensor
    z0: Tensor
    ts: Tensor
    targets: Tensor
    weight: float

    def loss(self, zs: Tensor) -> Tensor:
        """The loss of states `(n, 1, d)` at the last n times."""
        targets = self.targets[len(self.targets) - len(zs) :]
        return self.weight * ((zs[:, 0] - targets) ** 2).sum()

    def named(self, matrix: Tensor, z0: Tensor, ts: Tensor) -> Gradients:
        """Gradients by the names that tables give them."""
        of_times = {f"dL/dt{i}": t for i, t in enumerate(ts)}
        return {f"dL/d{self.parameter}": matrix, "dL/dz0": z0.reshape(-1), **of_times}

    def gradients(self, solve: Solve) -> Gradients:
        """All gradients of the loss by autograd, through `solve`; zero where autograd finds none."""
        field, z0, ts = LinearField(self.matrix), _leaf(self.z0[None]), _leaf(self.ts)
        loss = self.loss(solve(field, z0, ts)[1:])
        inputs = (field.matrix, z0, ts)
        return self.named(*torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True))

    def finite_differences(self, solve: Solve) -> Gradients:
        """The same gradients by central differences of the loss."""
        parts = (self.matrix, self.z0, self.ts)
        point, sizes = torch.cat([part.flatten() for part in parts]), [part.numel() for part in parts]
        # A time moves by a share of the distance to its neighbours, so that none passes another.
        steps = torch.full_like(point, _STEP)
        steps[-len(self.ts) :] *= (self.ts[1] - self.ts[0]).abs().clamp(max=1)

        def loss_at(moved: Tensor) -> float:
            matrix, z0, ts = moved.split(sizes)
            field = LinearField(matrix.view_as(self.matrix))
            return float(self.loss(solve(field, z0[None], ts)[1:]))

        with torch.no_grad():
            moves = torch.diag(steps)
            slopes = [sum(w * loss_at(point + k * move) for k, w in _STENCIL.items()) for move in moves]
        matrix, z0, ts = (torch.tensor(slopes, dtype=point.dtype) / steps).split(sizes)
        return self.named(matrix.view_as(self.matrix), z0, ts)

    def state_at(self, case: Case, t: Tensor) -> Tensor:
        """z(t), `(1, d)`, by the solver of `case`, through the observations before."""
        if t == self.ts[0]:
            return self.z0[None]
        before = self.ts[(t - self.ts) * self._direction > 0]
        return case.solve(LinearField(self.matrix), self.z0[None], torch.cat([before, t[None]])).ys[-1].detach()

    def adjoint_at(self, case: Case, z: Tensor, t: Tensor, *, after_jump: bool = False) -> Tensor:
        """a(t) = dL/dz(t), `(1, d)`, by the gradient of `case`; at an observation with its jump, or without."""
        z = _leaf(z)
        ts = torch.cat([t[None], self.ts[(self.ts - t) * self._direction > 0]])
        zs = case.solve(LinearField(self.matrix), z, ts).ys if len(ts) > 1 else z[None]
        has_jump = bool((self.ts[1:] == t).any()) and not after_jump
        loss = self.loss(zs[0 if has_jump else 1 :])
        return torch.autograd.grad(loss, z, allow_unused=True, materialize_grads=True)[0]

    @property
    def _direction(self) -> Tensor:
        return torch.sign(self.ts[-1] - self.ts[0])


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """The gradients, and z(t) and a(t), each `(d,)`; at an observation `a` has jumped already, seen from the end."""

    gradients: Gradients
    z: Callable[[float], Tensor]
    a: Callable[[float], Tensor]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a case makes of a problem; `zs` and `adjoints` are over time, `(times, d)`."""

    case: Case
    gradients: Gradients
    nfe_forward: int
    nfe_backward: int
    zs: Tensor
    adjoints: Tensor


@dataclass(frozen=True, eq=False)
class Differentiated:
    """The exact gradients of a pass by autograd, and its finite differences."""

    exact: Gradients
    finite: Gradients


def pass_of(case: Case) -> Pass:
    """Cases of the same pass differ in their gradient methods alone."""
    return case.solver_name, case.rtol


def num_measurements(cases: Sequence[Case]) -> int:
    """How often `measure` and `differentiate_passes` tick together."""
    return len(cases) + len(_passes(cases))


def measure(problem: Problem, case: Case, times: Tensor) -> Measured:
    """The gradients of a case, with z(t) and a(t) at `times`."""
    solutions = []

    def solve(vector_field: VectorField[Tensor], z0: Tensor, ts: Tensor) -> Tensor:
        solutions.append(case.solve(vector_field, z0, ts))
        return solutions[-1].ys

    gradients = problem.gradients(solve)
    zs = [problem.state_at(case, t) for t in times]
    adjoints = [problem.adjoint_at(case, z, t) for z, t in zip(zs, times, strict=True)]
    nfe = solutions[0].stats.nfe, solutions[0].backward_stats.nfe
    return Measured(case, gradients, *nfe, torch.cat(zs), torch.cat(adjoints))


def measure_all(problem: Problem, cases: Sequence[Case], times: Tensor, tick: Tick) -> list[Measured]:
    """Every case, with a tick before each."""
    measured = []
    for case in cases:
        tick(case.name)
        measured.append(measure(problem, case, times))
    return measured


def differentiate_passes(problem: Problem, cases: Sequence[Case], tick: Tick) -> dict[Pass, Differentiated]:
    """Every pass that autograd can look through, with a tick before each."""
    differentiated = {}
    for key, case in _passes(cases).items():
        tick(f"{_pass_name(key)} by finite differences")
        steps = FixedSteps(case.solver, LinearField(problem.matrix), problem.z0[None], problem.ts)
        differentiated[key] = Differentiated(problem.gradients(steps), problem.finite_differences(steps))
    return differentiated


def _passes(cases: Sequence[Case]) -> dict[Pass, Case]:
    return {pass_of(case): case for case in cases if case.solver.differentiable}


def _pass_name(key: Pass) -> str:
    return key[0] if key[1] is None else f"{key[0]} {key[1]:g}"


def error_rows(
    columns: Mapping[str, Sequence[str]],
    true: ClosedForm,
    measured: Sequence[Measured],
    passes: Mapping[Pass, Differentiated],
    mistakes: Mapping[str, Gradients],
    times: Tensor,
) -> list[dict[str, str]]:
    """The relative errors of every case, of finite differences, and of the mistakes, in this order.

    Args:
        columns: the names of the gradients, of which the largest error stands in the column.
        true: what all are measured against.
        measured: the cases.
        passes: of which the finite differences are taken.
        mistakes: gradients by the name of their row.
        times: those of `measured`.
    """
    zs, adjoints = over_time(true.z, times), over_time(true.a, times)
    rows = []
    for each in measured:
        along = {"a(t)": two_digits(_largest(each.adjoints, adjoints)), "z(t)": two_digits(_largest(each.zs, zs))}
        row = _row(columns, each.case.name, each.gradients, true.gradients)
        rows.append(row | along | {"evaluations": f"{each.nfe_forward} + {each.nfe_backward}"})
    others = {f"{_pass_name(key)} finite differences": each.finite for key, each in passes.items()} | dict(mistakes)
    blank = dict.fromkeys(("a(t)", "z(t)", "evaluations"), "")
    return rows + [_row(columns, name, gradients, true.gradients) | blank for name, gradients in others.items()]


def _row(columns: Mapping[str, Sequence[str]], name: str, computed: Gradients, true: Gradients) -> dict[str, str]:
    errors = errors_alone(computed, true)
    return {"": name} | {column: two_digits(max(errors[each] for each in names)) for column, names in columns.items()}


def _largest(computed: Tensor, true: Tensor) -> float:
    """The largest error over time, relative to the largest value."""
    return float((computed - true).norm(dim=1).max() / true.norm(dim=1).max())


def over_time(function: Callable[[float], Tensor], times: Tensor) -> Tensor:
    """Its values `(times, d)`."""
    return torch.stack([function(t) for t in times.tolist()])


def details_of(
    problem: Problem,
    true: ClosedForm,
    measured: Sequence[Measured],
    passes: Mapping[Pass, Differentiated],
    times: Tensor,
) -> dict[str, Any]:
    """All figures, in plain containers."""
    return {
        "closed_form": plain(true.gradients),
        "times": times.tolist(),
        "z": over_time(true.z, times).tolist(),
        "a": over_time(true.a, times).tolist(),
        "cases": [_case_details(each, true.gradients) for each in measured],
        "passes": [
            {"solver": key[0], "rtol": key[1], "exact": plain(each.exact), "finite_differences": plain(each.finite)}
            for key, each in passes.items()
        ],
    }


def _case_details(measured: Measured, true: Gradients) -> dict[str, Any]:
    case = measured.case
    return {
        "solver": case.solver_name,
        "gradient": case.gradient_name,
        "rtol": case.rtol,
        "gradients": plain(measured.gradients),
        "relative_errors": errors_alone(measured.gradients, true),
        "nfe_forward": measured.nfe_forward,
        "nfe_backward": measured.nfe_backward,
        "z": measured.zs.tolist(),
        "a": measured.adjoints.tolist(),
    }


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """With lists in place of tensors."""
    return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}


def _leaf(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_()
