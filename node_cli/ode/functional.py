"""The solve for notebooks, with the arguments and the results of torchdiffeq's `odeint` and `odeint_adjoint`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import lru_cache, partial, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from node_cli.ode import arguments
from node_cli.ode.base import Solver
from node_cli.ode.compilation import outside_compilation
from node_cli.ode.control import require_visible
from node_cli.ode.gradients import Gradient
from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.gradients.checkpoint import Checkpoint
from node_cli.ode.gradients.direct import Direct
from node_cli.ode.pieces import solve_in_pieces
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import FirstSteps, Solution, SolveStats
from node_cli.ode.structure import FieldOfParts, Structure, taken_apart

P = ParamSpec("P")
R = TypeVar("R")

_GRADIENTS: dict[str, Gradient] = {
    "direct": Direct(),
    "checkpoint": Checkpoint(max_checkpoints=None),
    "adjoint": Adjoint(rtol=None, atol=None, norm="full"),
}
_NAMES_OF_THEIRS = {"func": "vector_field", "t": "ts"}
_CALLBACKS = tuple(
    f"callback_{step}{way}" for step in ("step", "accept_step", "reject_step") for way in ("", "_adjoint")
)
# What was compiled for one object is not found again for another.
_kept_field_of_parts = lru_cache(maxsize=32)(FieldOfParts)


def _as_torchdiffeq_takes_them(function: Callable[P, R]) -> Callable[P, R]:
    """The function, outside of torch.compile, also by torchdiffeq's names of its arguments."""
    run = outside_compilation(function)

    @wraps(function)
    def by_either_name(*args: P.args, **keys: P.kwargs) -> R:
        for theirs, ours in _NAMES_OF_THEIRS.items():
            if theirs in keys:
                if ours in keys:
                    raise TypeError(f"{ours} and {theirs} are the same argument: leave one out")
                keys[ours] = keys.pop(theirs)
        return run(*args, **keys)

    return by_either_name


@_as_torchdiffeq_takes_them
def odeint(
    vector_field: Callable[[Tensor, Any], Any],
    y0: Any,
    ts: Any,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: None = None,
    *,
    gradient: str | Gradient | None = None,
    **more: Any,
) -> Any:
    """Solves dy/dt = vector_field(t, y) with y(ts[0]) = y0, differentiably.

    Every argument of torchdiffeq's `odeint` is taken, by its name and in its order, with the same meaning, or refused
    in one line; docs/engine.md has the table.

    Args:
        vector_field: maps a 0-dim time (`(batch, 1, ..., 1)` with `batching="per_sample"` or own times) and a state to
            its slope, made and shaped like the state. A module or any callable: gradients reach every tensor it uses.
        y0: float32 or float64, `(batch, ...)` or any shape; or a tuple, list, dict or named tuple of such states.
        ts: increasing or decreasing, `(times,)`, a tensor, an array or a list; gradients reach a tensor. Or
            `(batch, times)`, where each sample of the state `(batch, ...)` has times of its own; a shorter row repeats
            its last time, which costs nothing.
        rtol: relative tolerance of a step, for an adaptive method; a number, one for each part of the state, or a
            tensor that broadcasts with it.
        atol: absolute tolerance, likewise; a list for a state of one tensor: one for each channel (dimension 1).
        method: adaptive: dopri5 (None), dopri8, bosh3, tsit5, adaptive_heun. On a grid: euler, midpoint, heun (heun2),
            ralston, rk4 (the 3/8 rule, as in torchdiffeq; also rk4_38), rk4_classic. By torchdiffeq itself: heun3,
            fehlberg2, explicit_adams, implicit_adams. By scipy: scipy_solver.
        options: those of torchdiffeq, and the keys of `configs/solver/<method>.yaml`. With `num_steps`, any method of
            our own takes so many equal steps between two output times; with `step_size`, steps of that size through
            all of them.
        event_fn: refused.
        gradient: `direct` (None), `checkpoint` (equal, in little memory), `adjoint` (None for scipy), or a gradient
            object with options.
        more: options as keywords.

    Returns:
        States at `ts`, shape `(times, *y0.shape)`, with the structure of `y0`. `solve` returns the cost too.

    Raises:
        SolveError: the solve failed; the message says how, when and what to do.
        ValueError: a state, a time or an option is not allowed.

    Source: Chen et al. 2018, *Neural Ordinary Differential Equations*, NeurIPS.
    """
    _refuse_events(event_fn)
    chosen = _all_options(options, more)
    return _solve(vector_field, y0, ts, rtol, atol, method, chosen, lambda solver, _: _gradient_of(gradient, solver)).ys


@_as_torchdiffeq_takes_them
def solve(
    vector_field: Callable[[Tensor, Any], Any],
    y0: Any,
    ts: Any,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: None = None,
    *,
    gradient: str | Gradient | None = None,
    **more: Any,
) -> Solution[Any]:
    """What `odeint` computes, with its cost: `Solution.stats`, and `Solution.backward_stats` after `backward()`."""
    _refuse_events(event_fn)
    chosen = _all_options(options, more)
    return _solve(vector_field, y0, ts, rtol, atol, method, chosen, lambda solver, _: _gradient_of(gradient, solver))


@_as_torchdiffeq_takes_them
def odeint_adjoint(
    vector_field: Callable[[Tensor, Any], Any],
    y0: Any,
    ts: Any,
    rtol: Any = 1e-7,
    atol: Any = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: None = None,
    adjoint_rtol: float | None = None,
    adjoint_atol: float | None = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
    **more: Any,
) -> Any:
    """`odeint` with the adjoint method, and torchdiffeq's arguments for its backward solve.

    `adjoint_rtol`, `adjoint_atol` and `adjoint_method` are those of the solve backwards; None: as forwards. So are
    `adjoint_options`; None: `options` but for their norm. Their `norm` is a function of (t, y, adjoint, *gradients of
    parameters), or `seminorm`, which leaves the gradients of parameters out. `adjoint_params` alone get a gradient,
    beside `y0` and `ts`; None: all tensors that the vector field uses.

    Raises:
        SolveError, ValueError: as `odeint`.
    """
    _refuse_events(event_fn)
    chosen = _all_options(options, more)
    if adjoint_options is None:
        if chosen and adjoint_method not in (None, method):
            raise ValueError(
                "adjoint_method differs from method and needs adjoint_options: options are those of method"
            )
        adjoint_options = {key: value for key, value in chosen.items() if key != "norm"}
    stops = [key for key in ("step_t", "jump_t") if adjoint_options.get(key) is not None]
    if any(chosen.get(key) is None for key in stops):
        raise ValueError(f"adjoint_options: {stops[0]} must be in options too, as both solves stop at the same times")
    backward = arguments.solver_of(
        method if adjoint_method is None else adjoint_method,
        rtol if adjoint_rtol is None else adjoint_rtol,
        atol if adjoint_atol is None else adjoint_atol,
        {key: value for key, value in adjoint_options.items() if key not in ("norm", *stops)},
    )[0]
    params = None if adjoint_params is None else tuple(adjoint_params)
    named = vector_field.parameters() if params is None and isinstance(vector_field, nn.Module) else params or ()
    num_named = sum(parameter.requires_grad for parameter in named)

    def gradient(solver: Solver, structure: Structure) -> Gradient:
        norm = _adjoint_norm(adjoint_options.get("norm"), structure, num_named)
        return Adjoint(rtol=None, atol=None, norm=norm, solver=backward, params=params)

    return _solve(vector_field, y0, ts, rtol, atol, method, chosen, gradient).ys


def odeint_event(*args: Any, **keys: Any) -> Any:
    """Refused: events are not supported; see `odeint`."""
    _refuse_events(odeint_event)


def _solve(
    vector_field: Callable[[Tensor, Any], Any],
    y0: Any,
    ts: Any,
    rtol: Any,
    atol: Any,
    method: str | None,
    options: dict[str, Any],
    gradient_of: Callable[[Solver, Structure], Gradient],
) -> Solution[Any]:
    _refuse_callbacks(vector_field)
    ts = _times(ts)
    per_sample = options.get("batching") == "per_sample"
    structure, flat0 = taken_apart(y0, by_sample=per_sample or ts.dim() == 2)
    rtol, atol = structure.tolerance("rtol", rtol), structure.tolerance("atol", atol)
    solver, stops = arguments.solver_of(method, rtol, atol, options)
    if solver.has_tolerances:
        require_visible(rtol, atol, flat0.dtype)
    if not structure.is_plain or callable(options.get("norm")):
        norm = partial(structure.norm, per_sample=per_sample, is_shared=bool(options.get("sync_steps")))
        solver = arguments.measured_by(solver, norm)
    gradient = gradient_of(solver, structure)
    gradient.check(solver)
    if ts.shape == (1,):  # one time alone is its own solution
        return Solution(structure.unflatten(flat0[None]), SolveStats())
    field = vector_field
    if not structure.is_plain:
        is_compiled = isinstance(solver, RungeKutta) and solver.is_compiled
        field = (_kept_field_of_parts if is_compiled else FieldOfParts)(vector_field, structure)
    if stops.steps or stops.jumps:
        if ts.dim() == 2:
            shape = tuple(ts.shape)
            raise ValueError(f"step_t and jump_t must be left out where each sample has its own ts, got ts {shape}")
        solution = solve_in_pieces(gradient, solver, field, flat0, ts, stops)
    else:
        solution = gradient.solve(solver, field, flat0, ts, FirstSteps())
    return Solution(structure.unflatten(solution.ys), solution.stats, solution.backward)


def _gradient_of(gradient: str | Gradient | None, solver: Solver) -> Gradient:
    if gradient is None:
        gradient = "direct" if solver.differentiable else "adjoint"
    if not isinstance(gradient, str):
        return gradient
    if gradient not in _GRADIENTS:
        raise ValueError(f"gradient must be one of {', '.join(_GRADIENTS)}, got {gradient}")
    return _GRADIENTS[gradient]


def _adjoint_norm(norm: str | Callable[[Any], Any] | None, structure: Structure, num_params: int) -> Any:
    """What `adjoint_options` name as one of (y, a, *dL/dtheta), where a time, of no error here, comes first."""
    if norm is None or norm == "seminorm":
        return "semi" if norm else "full"
    if isinstance(norm, str):
        raise ValueError(f"adjoint_options: norm must be seminorm or a function, got {norm}")
    given = norm

    def measure(state: tuple[Tensor, ...]) -> Tensor:
        y, adjoint, *grads = state
        parts = (y.new_zeros(()), *structure.parts_of(y), *structure.parts_of(adjoint), *grads[:num_params])
        measured: Tensor = torch.as_tensor(given(parts), dtype=y.dtype, device=y.device).reshape(())
        return measured

    return measure


def _times(ts: Any) -> Tensor:
    if not isinstance(ts, (Tensor, np.ndarray, list, tuple)):
        raise ValueError(f"ts must be a tensor, an array or a list of times, got {type(ts).__name__}")
    try:
        return ts if isinstance(ts, Tensor) else torch.as_tensor(ts, dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"ts must be numbers, in rows of one length (repeat the last time of a row): {error}"
        ) from None


def _all_options(options: Mapping[str, Any] | None, more: dict[str, Any]) -> dict[str, Any]:
    if not options:
        return more
    twice = sorted(set(options) & set(more))
    if twice:
        raise ValueError(f"{', '.join(twice)} is given in options and as a keyword: leave one out")
    return {**options, **more}


def _refuse_events(event_fn: object) -> None:
    if event_fn is not None:
        raise ValueError(
            "event_fn is not supported: solve to a fixed time, or find the event in the states that are returned"
        )


@lru_cache(maxsize=32)
def _has_callbacks(kind: Hashable) -> bool:
    return not set(_CALLBACKS).isdisjoint(dir(kind))


def _refuse_callbacks(vector_field: object) -> None:
    kind: Any = type(vector_field)
    if isinstance(vector_field, nn.Module) and not _has_callbacks(kind):
        own = (vars(vector_field), vector_field._modules)  # a module takes long to say that it has no attribute
        if all(name not in place for place in own for name in _CALLBACKS):
            return
    found = [name for name in _CALLBACKS if getattr(vector_field, name, None) is not None]
    if found:
        raise ValueError(
            f"{found[0]} of the vector field would not be called: take it out, and read the steps from solve(...).stats"
        )
