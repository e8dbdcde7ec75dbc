"""The solvers of scipy, which have methods for stiff problems."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from node_cli.ode import control, states
from node_cli.ode.base import NormOfParts, Solver, VectorField
from node_cli.ode.checks import require, require_choice, require_positive
from node_cli.ode.solution import Solution, State, Status
from node_cli.ode.vector_field import CountedVectorField

Array: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]

EXPLICIT_METHODS = ("RK45", "RK23", "DOP853")
STIFF_METHODS = ("LSODA", "Radau", "BDF")  # these keep the Jacobian of the whole batch as one dense matrix
MAX_STIFF_SIZE = 10_000  # 0.8 GB of it


@dataclass(frozen=True, kw_only=True)
class Scipy(Solver):
    """`scipy.integrate.solve_ivp` on the CPU: slow, without autograd, but with methods for stiff problems.

    LSODA, Radau and BDF are for stiff problems of at most 10,000 numbers in all.
    """

    method: str
    rtol: float
    atol: float
    max_step: float | None
    max_nfe: int | None
    differentiable: ClassVar[bool] = False
    has_tolerances: ClassVar[bool] = True
    has_norm: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("method", self.method, EXPLICIT_METHODS + STIFF_METHODS)
        require_positive(max_step=self.max_step, max_nfe=self.max_nfe)
        control.require_tolerances(self.rtol, self.atol)
        require(self.rtol >= 1e-13, "rtol must be at least 1e-13 for scipy", self.rtol)

    def integrate(
        self,
        vector_field: VectorField[State],
        y0: State,
        ts: Tensor,
        *,
        norm: NormOfParts | None = None,
        first_step: float | None = None,
    ) -> Solution[State]:
        """See `Solver.integrate`; rejected steps are not counted, as scipy does not report them.

        Raises:
            ValueError: no solve can start from `y0` or `ts`.
        """
        times = np.array(states.checked_start(y0, ts))
        with torch.no_grad(), self.explained(y0):
            return self._solve(vector_field, y0, ts, times)

    def _solve(self, vector_field: VectorField[State], y0: State, ts: Tensor, times: Array) -> Solution[State]:
        counted: CountedVectorField[Any] = CountedVectorField(vector_field, self.max_nfe)
        parts0: tuple[Tensor, ...] = y0 if isinstance(y0, tuple) else (y0,)
        layout = states.Layout.of(parts0)
        flat0, in_field, last = _flatten(parts0), False, ts[0]

        def state_of(flat: Array) -> Any:
            parts = layout.split(torch.tensor(flat).to(parts0[0]))
            return parts if isinstance(y0, tuple) else parts[0]

        if not np.isfinite(flat0).all():
            raise counted.failure(Status.NON_FINITE, ts[0])
        if self.method in STIFF_METHODS and len(flat0) > MAX_STIFF_SIZE:
            raise counted.failure(Status.TOO_LARGE, ts[0])

        def numpy_field(t: float, y: Array) -> Array:
            nonlocal in_field, last
            in_field, last = True, ts.new_tensor(t)
            slope = counted(last.to(parts0[0].dtype), state_of(y))
            dy = _flatten(slope if isinstance(slope, tuple) else (slope,))
            if not np.isfinite(dy).all():  # scipy's methods would shrink the step for ever, or fail in their algebra
                raise counted.failure(Status.NON_FINITE, last)
            in_field = False
            return dy

        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="scipy")  # what it warns of, it also returns as a failure
            try:
                result = solve_ivp(
                    numpy_field,
                    (times[0], times[-1]),
                    flat0,
                    self.method,
                    dense_output=True,
                    rtol=self.rtol,
                    atol=self.atol,
                    max_step=math.inf if self.max_step is None else self.max_step,
                )
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                if in_field:
                    raise
                # Of its algebra: slopes are finite, and a Jacobian made of their differences is not.
                detail = f"{self.method} cannot go on: {str(error).rstrip('.')}; "
                raise counted.failure(Status.STOPPED_EARLY, last, detail) from error
        if not result.success:
            raise counted.failure(Status.STOPPED_EARLY, ts.new_tensor(result.t[-1]), f"{result.message.rstrip('.')}; ")
        counted.stats.step_sizes = np.abs(np.diff(result.t)).tolist()
        counted.stats.num_accepted = len(counted.stats.step_sizes)
        flat = result.sol(times).T
        flat[0] = flat0  # LSODA's interpolant misses it by its rounding
        return Solution(state_of(flat), counted.stats)


def _flatten(parts: tuple[Tensor, ...]) -> Array:
    flat = torch.cat([part.detach().reshape(-1) for part in parts])
    array: Array = flat.cpu().double().numpy()
    return array
