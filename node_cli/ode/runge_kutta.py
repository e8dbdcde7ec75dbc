"""What all explicit Runge-Kutta methods share: a solve of any state by one tableau, compiled or not."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from node_cli.ode import control, states
from node_cli.ode.base import NormOfParts, Solver, VectorField
from node_cli.ode.checks import require_choice, require_positive
from node_cli.ode.compilation import (
    COMPILE,
    COMPILED,
    MANY_SOLVES,
    SMALL_STATE,
    StepFunctions,
    compiled_vector_field,
    step_functions,
)
from node_cli.ode.graphs.capture import capture_of
from node_cli.ode.graphs.examples import Examples
from node_cli.ode.graphs.solve_graphs import SolveGraphs
from node_cli.ode.integrate import Record, Run
from node_cli.ode.own_times import AskedTimes
from node_cli.ode.solution import Solution, SolveError, State
from node_cli.ode.stepping import Slope, Stepper
from node_cli.ode.tableaus import Array, Tableau
from node_cli.ode.vector_field import CountedVectorField

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RungeKutta(Solver):
    """An explicit Runge-Kutta method of `tableaus.py`; gradients get a record of its steps, so it needs no autograd."""

    method: str
    max_nfe: int | None
    compile: str
    differentiable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(max_nfe=self.max_nfe)
        require_choice("compile", self.compile, COMPILE)

    @property
    def is_compiled(self) -> bool:
        """Whether anything of a solve is compiled. `auto` is not, until `settled` has seen a state."""
        return self.compile in COMPILED

    @property
    @abstractmethod
    def tableau(self) -> Tableau:
        """The coefficients of a step."""

    @property
    @abstractmethod
    def has_own_steps(self) -> bool:
        """Whether each sample has its own steps, even at times that all have in common."""

    @property
    @abstractmethod
    def shares_steps(self) -> bool:
        """Whether the steps are those of all processes together."""

    def asked_times(self, ts: Tensor, y0: Tensor) -> AskedTimes:
        """The times as a solve by this solver goes through them, if it is to have gradients."""
        may_be_joined = not (ts.requires_grad or self.has_own_steps or self.shares_steps)
        return AskedTimes.of(ts, y0, may_be_joined=may_be_joined, is_shared=self.shares_steps)

    def integrate(
        self,
        vector_field: VectorField[State],
        y0: State,
        ts: Tensor,
        *,
        norm: NormOfParts | None = None,
        first_step: float | None = None,
        record: Record = lambda step, y: None,
        compiled: StepFunctions | SolveGraphs | None = None,
    ) -> Solution[State]:
        """See `Solver.integrate`; `record` is called with every accepted step, of the flat state if that is a tuple.

        `compiled` steps are those of the same vector field, which is then evaluated at the start only.

        Raises:
            ValueError: `y0` is empty, complex or of low precision; `ts` is no order of times; or the vector field
                returns another shape.
        """
        if ts.dim() == 2:
            states.require_state(y0)
        asked = AskedTimes.of(ts, y0)
        times = np.array(states.on_host(asked.ts)) if ts.dim() == 2 else states.checked_start(y0, ts)
        with torch.no_grad():
            if not isinstance(y0, tuple):
                return asked.spread(self._solve(vector_field, y0, times, None, first_step, record, compiled))
            layout, of_parts = states.Layout.of(y0), norm or control.largest_rms

            def flat_field(t: Tensor, y: Tensor) -> Tensor:
                return layout.flatten_slope(vector_field(t, layout.split(y)), y.dtype)

            def flat_norm(ratios: Tensor) -> Tensor:
                return of_parts(layout.split(ratios))

            flat = self._solve(flat_field, layout.flatten(y0), times, flat_norm, first_step, record, compiled)
            return Solution(layout.split(flat.ys), flat.stats)

    def _solve(
        self,
        vector_field: Slope,
        y0: Tensor,
        ts: list[float] | Array,
        norm: control.Norm | None,
        first_step: float | None,
        record: Record,
        compiled: StepFunctions | SolveGraphs | None,
    ) -> Solution[Tensor]:
        device = y0.device.type
        counted = CountedVectorField(states.keep_autocast(vector_field, device), self.max_nfe)

        def attempt(t0: Tensor, t1: Tensor, y: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
            assert isinstance(compiled, StepFunctions)
            counted.count(self.tableau.num_stages - 1, t0)
            return compiled.attempt(t0, t1, y, slope)

        with states.outside_autocast(device):
            y0 = y0.detach().clone()  # whatever the vector field does to it, the caller's stays as it is
            graphs = compiled if isinstance(compiled, SolveGraphs) else None
            y0 = y0 if graphs is None else y0.contiguous()
            step = attempt if isinstance(compiled, StepFunctions) else None
            new_stepper = partial(Stepper, self.tableau, counted, y0, step)
            run = Run(new_stepper, y0, ts, counted.stats, record, self.max_nfe, graphs)
            try:
                ys = self._steps(run, norm, first_step)
            except SolveError as error:
                self.explain(error, y0)
                raise
        return Solution(ys, counted.stats)

    @abstractmethod
    def _steps(self, run: Run, norm: control.Norm | None, first_step: float | None) -> Tensor:
        """States at `run.ts`; `norm` is set for a state that is several things in one."""


def settled(solver: Solver, y0: Tensor, num_solves: int) -> Solver:
    """The solver with what `compile=auto` means for so many solves from states like `y0`."""
    if not isinstance(solver, RungeKutta) or solver.compile != "auto":
        return solver
    is_small = y0.dim() <= 2 and y0.numel() <= SMALL_STATE
    return replace(solver, compile="solve" if is_small and num_solves >= MANY_SOLVES else "none")


def compiled_field(solver: Solver, vector_field: VectorField[Tensor], y0: Tensor) -> VectorField[Tensor]:
    """The vector field as the solver's `compile` wants it evaluated."""
    if isinstance(solver, RungeKutta) and solver.compile == "vector_field":
        return compiled_vector_field(vector_field, y0.device.type)
    return vector_field


def compiled_steps(
    solver: Solver, vector_field: VectorField[Tensor], y0: Tensor, ts: Tensor, *, keeps_states: bool
) -> StepFunctions | SolveGraphs | None:
    """What is compiled of the steps by the vector field, as the solver's `compile` asks for it."""
    if not isinstance(solver, RungeKutta) or solver.compile not in ("step", "solve"):
        return None
    device = y0.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    is_whole = solver.compile == "solve" and not _refused(solver, y0, ts, keeps_states)
    if is_whole and (capture := capture_of(vector_field, device, autocast)) is not None:
        by_sample = ts.dim() == 2 or solver.has_own_steps
        found = capture(y0, by_sample=by_sample)
        if found is not None and (
            found[0].is_whole or capture.is_whole(found[0], Examples(found[0], by_sample=by_sample).require_whole)
        ):
            return SolveGraphs(*found, solver.tableau, capture.refuse)
    return step_functions(solver.method, vector_field, device, autocast)


def _refused(solver: RungeKutta, y0: Tensor, ts: Tensor, keeps_states: bool) -> bool:
    """Whether `compile=solve` does not take this solve yet; the log says so once."""
    settings = vars(solver)
    if y0.dim() > 2 and not y0.is_cuda:
        reason = "the state has more dimensions than (batch, features)"
    elif solver.shares_steps:
        reason = "the steps are those of several processes"
    elif callable(settings.get("norm")):
        reason = "the norm of an error is a function"
    elif not keeps_states:
        reason = "the gradient keeps no states (adjoint), or few (max_checkpoints)"
    elif settings.get("outputs") == "step" and ts.dim() == 1 and not bool(ts.diff().all()):
        reason = "adaptive steps end at output times, some of them equal"
    elif settings.get("accepts_min_step") and settings["min_step"]:
        reason = "steps of min_step are accepted"
    else:
        return False
    _say_that_a_step_is_compiled(reason)
    return True


@cache
def _say_that_a_step_is_compiled(reason: str) -> None:
    log.warning("compile=solve cannot compile this solve as a whole, so step is taken: %s", reason)
