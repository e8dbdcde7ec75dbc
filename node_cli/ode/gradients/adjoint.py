"""Optimise, then discretise: the gradient is the solution of a second ODE, solved backwards in time.

With a(t) = dL/dy(t), from Chen et al. 2018, equations 4 and 5 and appendix B:

    da/dt = -a df/dy,    dL/dtheta = -int_{t1}^{t0} a df/dtheta dt,    dL/dt1 = a f at t1,    dL/dt0 = -a f at t0.

The state is solved backwards beside it, so memory does not grow with the evaluations; it is reset to the stored
value at each output time, where a jumps by the gradient of the loss at that time. Where each sample has output times of
its own, all go from one to the next together, by a common time s with t = t_i + (t_(i-1) - t_i) s / L of each sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from node_cli.ode import control, synchronised
from node_cli.ode.base import NormOfParts, Solver, VectorField
from node_cli.ode.errors import ArgumentError
from node_cli.ode.gradients.backward_solve import AdjointSolve, BackwardProblem
from node_cli.ode.gradients.inputs import WatchedVectorField
from node_cli.ode.gradients.same_field import precision_of
from node_cli.ode.own_times import AskedTimes
from node_cli.ode.runge_kutta import RungeKutta, compiled_field, compiled_steps
from node_cli.ode.solution import FirstSteps, Solution
from node_cli.ode.states import keep_autocast
from node_cli.ode.vector_field import outside_transforms


@dataclass(frozen=True, kw_only=True)
class Adjoint:
    """The adjoint method. Its error is that of two solves: not exactly the gradient of the loss that was computed.

    `rtol` and `atol` are those of the backward solve (None: the solver's). `norm` says what its step control sees:
    `full` state, adjoint and parameter gradients; `semi` leaves the parameter gradients out, which feed back into
    nothing (Kidger et al. 2021, "Hey, that's not an ODE").

    Where processes share their steps, the backward solve is that of the whole batch too, if the loss of a process is
    its mean times its share of the samples, so that the losses add up to that of one process, and so do the gradients.
    With norm `full`, parameter gradients are summed over processes at each evaluation; `semi` spares that.

    From `odeint_adjoint`, beside those: as `norm` a function of (y, a, *dL/dtheta), a `solver` of its own for the
    backward solve, and the `params` that alone are to have gradients, used or not.
    """

    rtol: float | None
    atol: float | None
    norm: str
    solver: Solver | None = None
    params: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        for key in ("rtol", "atol"):
            value = vars(self)[key]
            if value is not None and not value > 0:
                raise ValueError(f"{key} must be positive, or unset to take the solver's, got {value}")
        if isinstance(self.norm, str) and self.norm not in _MEASURED:
            raise ValueError(f"norm must be one of {', '.join(_MEASURED)}, got {self.norm}")

    def check(self, solver: Solver) -> None:
        """Raises ArgumentError for settings that the solver would ignore or cannot take."""
        given = [key for key in ("rtol", "atol") if vars(self)[key] is not None]
        if given and not solver.has_tolerances:
            rule = f"{{adjoint_{given[0]}}} has no effect on a solver of fixed step size"
            raise ArgumentError(rule + ": leave it unset, or take {dopri5}")
        if self.norm != "full" and not (self.solver or solver).has_norm:
            rule = " has no effect on this solver, which has an error norm of its own or none: take {full}, or {dopri5}"
            raise ArgumentError(("{semi}" if self.norm == "semi" else "a norm of the adjoint") + rule)
        for key in ("rtol", "atol"):
            if vars(self)[key] is None and isinstance(vars(self.solver or solver).get(key), (list, Tensor)):
                rule = f"{{adjoint_{key}}} must be a number where {{{key}}} has one for each channel"
                raise ArgumentError(rule + ": the state of the backward solve has no channels")
        solver.with_tolerances(self.rtol, self.atol)

    def solve(
        self, solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, first_steps: FirstSteps
    ) -> Solution[Tensor]:
        """See `Gradient.solve`."""
        vector_field, device = outside_transforms(vector_field, y0, ts), y0.device.type
        if isinstance(solver, RungeKutta):
            asked = solver.asked_times(ts, y0)
        else:
            asked = AskedTimes.of(ts, y0, may_be_joined=not ts.requires_grad)
        ts = asked.ts
        field: Any = keep_autocast(compiled_field(solver, vector_field, y0), device)
        watched = None
        if torch.is_grad_enabled():
            raw = keep_autocast(vector_field, device)
            known = self.params or ()
            field = watched = WatchedVectorField(field, first=raw, keep_watching=not y0.requires_grad, known=known)
        keys: dict[str, Any] = {"first_step": first_steps.forward}
        if isinstance(solver, RungeKutta):
            keys["compiled"] = compiled_steps(solver, vector_field, y0, ts, keeps_states=False)
        with torch.no_grad():
            solution = solver.integrate(field, y0.detach(), ts, **keys)
        if watched is None:
            return asked.spread(solution)
        watched.stop_watching()
        first_steps.forward = solution.stats.next_first_step
        is_shared = isinstance(solver, RungeKutta) and solver.shares_steps
        sums_gradients = is_shared and self.norm == "full"
        if sums_gradients:
            _refuse_shares_of_a_batch(watched.inputs)
        sparse = [tuple(tensor.shape) for tensor in watched.inputs if tensor.layout is not torch.strided]
        if sparse:
            raise ArgumentError(
                "{adjoint} has no gradient for the sparse tensor of shape {shape} that the vector field uses: take "
                "{checkpoint}, or build the tensor from its values inside the vector field",
                shape=sparse[0],
            )
        backward_solver = (self.solver or solver).with_tolerances(self.rtol, self.atol)
        if isinstance(backward_solver, RungeKutta):  # the augmented vector field holds a backward pass
            backward_solver = replace(backward_solver, compile="none")
        norm = _norm(self.norm, backward_solver, is_shared) if isinstance(self.norm, str) else self.norm
        problem = BackwardProblem(
            backward_solver, norm, watched, first_steps, is_shared, sums_gradients, precision_of(y0)
        )
        inputs = watched.inputs
        if self.params is not None:
            wanted = {id(parameter) for parameter in self.params}
            inputs = tuple(tensor if id(tensor) in wanted else tensor.detach() for tensor in inputs)
        ys = AdjointSolve.apply(problem, solution.ys, y0, ts, *inputs)
        return asked.spread(Solution(ys, solution.stats, problem.stats))


def _refuse_shares_of_a_batch(inputs: tuple[Tensor, ...]) -> None:
    """Only parameters are known to be the same in all processes, so that their gradients may be summed."""
    others = [tuple(tensor.shape) for tensor in inputs if not isinstance(tensor, nn.Parameter)]
    if others:
        raise ArgumentError(
            "{sync_steps} with {full} has gradients of parameters only, and the vector field uses a tensor of shape "
            "{shape} that is not a parameter: take {semi}, or {checkpoint}",
            shape=others[0],
        )


_MEASURED = {"full": None, "semi": 2}  # how many parts of the state, from the first; None: all


def _norm(name: str, solver: Solver, is_shared: bool) -> NormOfParts:
    """What `Adjoint.norm` names, of all processes if they share their steps.

    State and adjoint are measured as the solver measures the state, if it has a norm of its own for that.
    """
    measured, largest_rms = _MEASURED[name], synchronised.largest_rms if is_shared else control.largest_rms
    own = vars(solver).get("norm")
    if not callable(own):
        return lambda state: largest_rms(state[:measured])

    def norm(state: tuple[Tensor, ...]) -> Tensor:
        y, adjoint, *grads = state[:measured]
        return torch.stack([own(y).max(), own(adjoint).max(), *([largest_rms(tuple(grads))] if grads else [])]).max()

    return norm
