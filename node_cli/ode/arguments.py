"""What the arguments of `odeint` name: a solver, and the times at which its steps have to end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.base import Solver
from node_cli.ode.solvers import Adaptive, Fixed
from node_cli.ode.states import require_no_gradient

# Methods of our own by their names: a tableau each. On a grid they step from output to output, or by `step_size`.
ADAPTIVE = {"dopri5": "dopri5", "dopri8": "dopri8", "bosh3": "bosh3", "tsit5": "tsit5", "adaptive_heun": "heun"}
ON_GRID = {
    "euler": "euler",
    "midpoint": "midpoint",
    "heun": "heun",
    "heun2": "heun",  # as torchdiffeq calls it
    "ralston": "ralston",
    "rk4": "rk4_38",  # as torchdiffeq means it
    "rk4_38": "rk4_38",
    "rk4_classic": "rk4",
}
THEIRS = ("heun3", "fehlberg2", "explicit_adams", "implicit_adams", "fixed_adams")  # solved by torchdiffeq itself
SCIPY = "scipy_solver"
METHODS = (*ADAPTIVE, *ON_GRID, *THEIRS, SCIPY)

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
    "outputs": "interpolate",
    "batching": "joint",
    "sync_steps": False,
    "max_steps": 100_000,  # the YAML files bound the evaluations instead
    "max_nfe": None,
    "compile": "auto",
}
_ON_GRID: dict[str, Any] = {"num_steps": None, "step_size": None, "max_nfe": None, "compile": "none"}
_NOT_A_CONFIG: dict[str, Any] = {"on_failure": "raise", "fallback_steps": 1}
_SYNONYMS = {"max_num_steps": "max_steps"}  # torchdiffeq's names of ours

# Options of torchdiffeq's methods that it alone reads.
_GRID_OPTIONS_OF_THEIRS = ("interp", "grid_constructor", "perturb")
_NAMES_OF_THEIRS = {"euler": "euler", "midpoint": "midpoint", "heun": "heun2", "rk4_38": "rk4"}  # by tableau
_ADAPTIVE_OF_THEIRS = (
    *("first_step", "min_step", "max_step", "safety", "ifactor", "dfactor"),
    *("max_num_steps", "dtype", "step_t", "jump_t", "norm"),
)
_OPTIONS_OF_THEIRS = {
    **dict.fromkeys((*_NAMES_OF_THEIRS.values(), "heun3"), ("step_size", *_GRID_OPTIONS_OF_THEIRS)),
    "fehlberg2": _ADAPTIVE_OF_THEIRS,
    "explicit_adams": ("step_size", *_GRID_OPTIONS_OF_THEIRS, "max_order"),
    "implicit_adams": ("step_size", *_GRID_OPTIONS_OF_THEIRS, "max_order", "max_iters"),
}


@dataclass(frozen=True)
class Stops:
    """Times at which steps have to end, in any order; at `jumps` the vector field may be discontinuous."""

    steps: tuple[float, ...] = ()
    jumps: tuple[float, ...] = ()


def solver_of(method: str | None, rtol: Any, atol: Any, options: Mapping[str, Any]) -> tuple[Solver, Stops]:
    """The solver that `method`, tolerances and options ask for.

    Raises:
        ValueError: there is no such method or option, or a value is not allowed.
    """
    if all(type(value) in (str, int, float, bool) for value in (rtol, atol, *options.values())):
        return _kept_solver(method, tuple(options), rtol, atol, *options.values())
    return _new_solver(method, rtol, atol, options)


@lru_cache(maxsize=32, typed=True)
def _kept_solver(method: str | None, keys: tuple[str, ...], rtol: Any, atol: Any, *values: Any) -> tuple[Solver, Stops]:
    """Checking a solver again takes longer than a small solve."""
    return _new_solver(method, rtol, atol, dict(zip(keys, values, strict=True)))


def _new_solver(method: str | None, rtol: Any, atol: Any, options: Mapping[str, Any]) -> tuple[Solver, Stops]:
    method = "dopri5" if method is None else method
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method}")
    given = {_SYNONYMS.get(key, key) if method not in THEIRS else key: _plain(value) for key, value in options.items()}
    if method == SCIPY:
        return _scipy(rtol, atol, given), Stops()
    if method in THEIRS:
        return _theirs({"fixed_adams": "implicit_adams"}.get(method, method), rtol, atol, given), Stops()
    if method in ON_GRID or "num_steps" in given or "step_size" in given:
        return _on_grid(ON_GRID.get(method) or ADAPTIVE[method], rtol, atol, given), Stops()
    return _adaptive(ADAPTIVE[method], rtol, atol, given)


def _adaptive(tableau: str, rtol: Any, atol: Any, options: dict[str, Any]) -> tuple[Solver, Stops]:
    if options.pop("dtype", torch.float64) != torch.float64:
        raise ValueError("dtype must be torch.float64: times are always kept in it, leave it out")
    stops = Stops(_times("step_t", options.pop("step_t", None)), _times("jump_t", options.pop("jump_t", None)))
    if len(set(stops.steps + stops.jumps)) < len(stops.steps + stops.jumps):
        raise ValueError(f"step_t and jump_t must not repeat a time, got {stops.steps} and {stops.jumps}")
    if options.get("first_step", 0) is None:
        del options["first_step"]
    if options.get("max_step") == math.inf:
        del options["max_step"]
    keys = _merged(_ADAPTIVE, options, also=("step_t", "jump_t"))
    if callable(keys["norm"]) and (keys["batching"] != "joint" or keys["sync_steps"]):
        raise ValueError("norm must be rms or max with batching=per_sample or sync_steps=True, got a function")
    if keys["min_step"] and keys["batching"] != "joint":
        raise ValueError(f"min_step must be 0 with batching=per_sample, got {keys['min_step']}")
    return Adaptive(method=tableau, rtol=rtol, atol=atol, accepts_min_step=True, **keys, **_NOT_A_CONFIG), stops


def _on_grid(tableau: str, rtol: Any, atol: Any, options: dict[str, Any]) -> Solver:
    if options.get("interp") == "linear":
        del options["interp"]
    if options.get("perturb") is False:
        del options["perturb"]
    if options.keys() & set(_GRID_OPTIONS_OF_THEIRS) and tableau in _NAMES_OF_THEIRS:
        return _theirs(_NAMES_OF_THEIRS[tableau], rtol, atol, options)
    keys = _merged(_ON_GRID, options, also=_GRID_OPTIONS_OF_THEIRS if tableau in _NAMES_OF_THEIRS else ())
    if keys["num_steps"] is None and keys["step_size"] is None:
        keys["num_steps"] = 1
    return Fixed(method=tableau, **keys, passes_outputs=keys["num_steps"] is None, **_NOT_A_CONFIG)


def _theirs(method: str, rtol: Any, atol: Any, options: dict[str, Any]) -> Solver:
    from node_cli.ode.torchdiffeq_solver import Torchdiffeq  # only now: importing it takes a while

    bounds = {"max_steps": None, "max_nfe": None}
    keys = _merged({**dict.fromkeys(_OPTIONS_OF_THEIRS[method]), **bounds}, options)
    own = {key: keys[key] for key in options if key not in bounds}
    return Torchdiffeq.with_own_options(method, rtol, atol, own, keys["max_steps"], keys["max_nfe"], **_NOT_A_CONFIG)


def _scipy(rtol: Any, atol: Any, options: dict[str, Any]) -> Solver:
    from node_cli.ode.scipy_solver import Scipy  # only now: importing it takes a while

    if not (isinstance(rtol, (int, float)) and isinstance(atol, (int, float))):
        raise ValueError("rtol and atol must be numbers with method=scipy_solver")
    keys = _merged({"solver": "LSODA", "max_step": None, "min_step": 0, "max_nfe": None}, options)
    if keys.pop("min_step"):
        raise ValueError("min_step must be 0 with method=scipy_solver: scipy's other methods have none")
    if keys["max_step"] == math.inf:
        keys["max_step"] = None
    return Scipy(method=keys.pop("solver"), rtol=rtol, atol=atol, **keys, **_NOT_A_CONFIG)


def measured_by(solver: Solver, norm: Callable[[Any], Any]) -> Solver:
    """The solver with what `norm` makes of its norm, if it has one that can be chosen."""
    if isinstance(solver, Adaptive):
        chosen = norm(solver.norm)
        return solver if chosen == solver.norm else replace(solver, norm=chosen)
    if not solver.has_norm:
        return solver
    theirs: Any = solver
    own = theirs.own_options
    chosen = norm(own.get("norm", "rms"))
    return solver if chosen == "rms" else replace(theirs, own_options={**own, "norm": chosen})


def _merged(defaults: dict[str, Any], options: dict[str, Any], also: tuple[str, ...] = ()) -> dict[str, Any]:
    unknown = sorted(set(options) - set(defaults))
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)}: this method takes {', '.join((*defaults, *also))}")
    return defaults | options


def _plain(value: Any) -> Any:
    """A number in a tensor as a number."""
    if isinstance(value, Tensor) and value.dim() == 0:
        require_no_gradient("an option", value)
        return value.item()
    return value


def _times(name: str, times: Any) -> tuple[float, ...]:
    if times is None:
        return ()
    tensor = torch.as_tensor(times, dtype=torch.float64)
    require_no_gradient(name, tensor)
    return tuple(tensor.reshape(-1).tolist())
