"""The solve for notebooks, with the argument order and the result of torchdiffeq's `odeint`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor

from node_cli.ode import states
from node_cli.ode.base import VectorField
from node_cli.ode.gradients import Gradient
from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.gradients.checkpoint import Checkpoint
from node_cli.ode.gradients.direct import Direct
from node_cli.ode.solution import FirstSteps, Solution, State
from node_cli.ode.solvers import Adaptive, Fixed, RungeKutta
from node_cli.ode.tableaus import ADAPTIVE_METHODS, TABLEAUS

# What the YAML files in configs/ say, here for calls without a config; a test holds the two equal.
_ADAPTIVE: dict[str, Any] = {
    "norm": "rms",
    "first_step": "chosen",
    "min_step": 0.0,
    "max_step": None,
    "safety": 0.9,
    "ifactor": 10.0,
    "dfactor": 0.2,
    "pcoeff": 0.0,
    "icoeff": 1.0,
    "dcoeff": 0.0,
    "batching": "joint",
    "sync_steps": False,
    "max_steps": None,
    "max_nfe": None,
    "compile": "none",
}
# What was compiled for one object is not found again for another.
_kept_flat_field = lru_cache(maxsize=32)(states.flat_vector_field)
_NOT_A_CONFIG: dict[str, Any] = {"on_failure": "raise", "fallback_steps": 1}  # what training does with failures
_GRADIENTS: dict[str, Gradient] = {
    "direct": Direct(),
    "checkpoint": Checkpoint(max_checkpoints=None),
    "adjoint": Adjoint(rtol=None, atol=None, norm="full"),
}


def odeint(
    vector_field: VectorField[State],
    y0: State,
    ts: Tensor,
    *,
    rtol: float = 1e-7,
    atol: float | list[float] = 1e-9,
    method: str = "dopri5",
    gradient: str | Gradient = "direct",
    **options: Any,
) -> State:
    """Solves dy/dt = vector_field(t, y) with y(ts[0]) = y0, differentiably.

    Args:
        vector_field: maps a 0-dim time (`(batch, 1, ..., 1)` with `batching="per_sample"`) and a state to its slope,
            of the state's shape. A module or any callable: gradients reach every tensor that it uses.
        y0: float32 or float64, `(batch, ...)` or any shape, or a tuple of tensors.
        ts: increasing or decreasing, 1-dim, at least two times; gradients reach them too.
        rtol: relative tolerance of a step, for an adaptive method.
        atol: absolute tolerance, a number or one for each channel (dimension 1).
        method: euler, midpoint, heun, ralston, rk4, rk4_38, bosh3, dopri5, tsit5, dopri8.
        gradient: `direct`, `checkpoint` (equal, in little memory), `adjoint`, or a gradient object with options.
        options: other keys of `configs/solver/<method>.yaml`. With `num_steps` or `step_size` any method takes steps
            of fixed size between two output times; methods without an error estimate take one step without.

    Returns:
        States at `ts`, shape `(len(ts), *y0.shape)`; a tuple of them for a tuple state. `solve` tells the cost too.

    Raises:
        SolveError: the solve failed; the message says how, when and what to do.
        ValueError: a state, a time or an option that cannot be.

    Source: Chen et al. 2018, *Neural Ordinary Differential Equations*, NeurIPS.
    """
    return solve(vector_field, y0, ts, rtol=rtol, atol=atol, method=method, gradient=gradient, **options).ys


def solve(
    vector_field: VectorField[State],
    y0: State,
    ts: Tensor,
    *,
    rtol: float = 1e-7,
    atol: float | list[float] = 1e-9,
    method: str = "dopri5",
    gradient: str | Gradient = "direct",
    **options: Any,
) -> Solution[State]:
    """What `odeint` computes, with its cost: `Solution.stats`, and `Solution.backward_stats` after `backward()`."""
    solver = _solver(method, rtol, atol, options)
    if isinstance(gradient, str):
        if gradient not in _GRADIENTS:
            raise ValueError(f"gradient must be one of {', '.join(_GRADIENTS)}, got {gradient}")
        gradient = _GRADIENTS[gradient]
    gradient.check(solver)
    if not isinstance(y0, tuple):
        return gradient.solve(solver, vector_field, y0, ts, FirstSteps())
    states.require_state(y0)
    shapes = states.shapes_of(y0)
    make_flat = states.flat_vector_field if solver.compile == "none" else _kept_flat_field
    flat_field = make_flat(vector_field, shapes)
    solution = gradient.solve(solver, flat_field, states.flatten(y0), ts, FirstSteps())
    return Solution(states.unflatten(solution.ys, shapes), solution.stats, solution.backward_stats)


def _solver(method: str, rtol: float, atol: float | list[float], options: dict[str, Any]) -> RungeKutta:
    if method not in TABLEAUS:
        raise ValueError(f"method must be one of {', '.join(TABLEAUS)}, got {method}")
    on_grid = "num_steps" in options or "step_size" in options or method not in ADAPTIVE_METHODS
    if on_grid:
        num_steps = None if "step_size" in options else 1
        grid: dict[str, Any] = {"num_steps": num_steps, "step_size": None, "max_nfe": None, "compile": "none"}
        return Fixed(method=method, **_merged(grid, options), **_NOT_A_CONFIG)
    outputs: dict[str, Any] = {"outputs": "step" if TABLEAUS[method].dense is None else "interpolate"}
    return Adaptive(method=method, rtol=rtol, atol=atol, **_merged(_ADAPTIVE | outputs, options), **_NOT_A_CONFIG)


def _merged(defaults: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)}: this method takes {', '.join(defaults)}")
    return defaults | options
