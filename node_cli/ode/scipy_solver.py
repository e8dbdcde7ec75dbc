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
from node_cli.ode.ranges import require, require_choice, require_positive
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
        counted = CountedVectorField(vector_field, self.max_nfe)
        flat0, in_field, last = _flatten(y0), False, ts[0]
        if not np.isfinite(flat0).all():
            raise counted.failure(Status.NON_FINITE, ts[0])
        if self.method in STIFF_METHODS and len(flat0) > MAX_STIFF_SIZE:
            raise counted.failure(Status.TOO_LARGE, ts[0])

        def numpy_field(t: float, y: Array) -> Array:
            nonlocal in_field, last
            in_field, last = True, ts.new_tensor(t)
            dy = _flatten(counted(last.to(_parts(y0)[0].dtype), _unflatten(y, y0)))
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
        return Solution(_unflatten(flat, y0), counted.stats)


def _parts(y: State) -> tuple[Tensor, ...]:
    return y if isinstance(y, tuple) else (y,)


def _flatten(y: State) -> Array:
    flat = torch.cat([part.detach().reshape(-1) for part in _parts(y)])
    array: Array = flat.cpu().double().numpy()
    return array


def _unflatten(flat: Array, like: State) -> State:
    """`flat` `(..., n)` as tensors with the shapes, dtypes and devices of `like`, after the leading dimensions."""
    wanted: tuple[Tensor, ...] = _parts(like)
    pieces = torch.tensor(flat).split([part.numel() for part in wanted], dim=-1)
    leading = torch.Size(flat.shape[:-1])
    parts = tuple(piece.reshape(leading + part.shape).to(part) for piece, part in zip(pieces, wanted, strict=True))
    state: State = parts if isinstance(like, tuple) else parts[0]
    return state
