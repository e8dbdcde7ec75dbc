"""torch.compile for a vector field or a whole step. Times and step sizes are tensors: no step is compiled again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache, wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from node_cli.ode.states import keep_autocast
from node_cli.ode.stepping import CompiledStep, Slope, plain_step
from node_cli.ode.tableaus import TABLEAUS

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")

COMPILED = ("vector_field", "step", "solve")
MODES = ("none", *COMPILED)
COMPILE = (*MODES, "auto")
# What `auto` compiles as a whole: on small states, a training step becomes 2 to 5 ms shorter, and compiling takes 35 to
# 50 s, which this many solves win back (docs/benchmarks.md).
SMALL_STATE = 4096  # numbers
MANY_SOLVES = 20_000
NUM_KEPT = 32  # vector fields whose compiled code is kept


@lru_cache(maxsize=NUM_KEPT)
def compiled_vector_field(vector_field: Slope, device_type: str) -> Slope:
    """The vector field through torch.compile; as it is where nothing can be compiled."""
    compiled: Slope = torch.compile(vector_field) if can_compile(device_type) else vector_field
    return compiled


class StepFunctions:
    """A step of one method from one vector field, compiled as a whole, forwards and backwards.

    `attempt` is a `CompiledStep`. `pull` takes both ends of the step (float64), its state, the cotangents of the next
    state and of the stages (None: none), and the tensors that the vector field uses; it runs the step again and
    returns the cotangents of the state, of those tensors and, if `with_times`, of the two ends; the next state, and
    the stages.
    """

    def __init__(self, method: str, vector_field: Slope, device_type: str) -> None:
        step = plain_step(TABLEAUS[method], vector_field)

        def pull(
            t0: Tensor,
            t1: Tensor,
            y: Tensor,
            grad_y1: Tensor,
            grad_stages: Tensor | None,
            inputs: tuple[Tensor, ...],
            with_times: bool,
        ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
            with torch.enable_grad():
                y = y.detach().requires_grad_()
                ends = (t0.detach().requires_grad_(), t1.detach().requires_grad_()) if with_times else ()
                t0, t1 = ends or (t0, t1)
                y1, stages = step(t0, t1, y, vector_field(t0.to(y.dtype), y), grad_stages is not None)
                results = [y1] if grad_stages is None else [y1, stages]
                cotangents = [grad_y1] if grad_stages is None else [grad_y1, grad_stages]
                grads = torch.autograd.grad(
                    results, (y, *inputs, *ends), cotangents, allow_unused=True, materialize_grads=True
                )
            return grads, y1.detach(), stages.detach()

        # One graph for the step and its gradient; where torch is too old for it, they are compiled in pieces.
        with suppress(AttributeError):
            torch._dynamo.config.trace_autograd_ops = True
        # Less Python between the kernels. Not as torch's CUDA graphs: a piece of a function would overwrite another's.
        options: dict[str, Any] = {} if device_type == "cuda" else {"cpp_wrapper": True}
        self.attempt: CompiledStep = torch.compile(with_own_code(step), options=options)
        self.pull: Callable[..., tuple[tuple[Tensor, ...], Tensor, Tensor]] = torch.compile(
            with_own_code(pull), options=options
        )


def with_own_code(function: Any) -> Any:
    """A copy: the compiler counts recompilations by code, which all vector fields and methods would share."""
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


@lru_cache(maxsize=NUM_KEPT)
def step_functions(
    method: str, vector_field: Slope, device_type: str, autocast: torch.dtype | None
) -> StepFunctions | None:
    """The compiled steps, under the autocast of this moment (None: none); None where nothing can be compiled."""
    if not can_compile(device_type):
        return None
    return StepFunctions(method, keep_autocast(vector_field, device_type), device_type)


@cache
def can_compile(device_type: str) -> bool:
    """Whether torch.compile works on this machine, found out by trying; where it does not, the log says so once."""
    try:
        torch.compile(torch.sin)(torch.zeros(2, device=device_type))
    except Exception as error:  # what goes wrong without a compiler has no common class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("compile has no effect: torch.compile does not work on this machine (%s)", reason)
        return False
    return True


def outside_compilation(function: Callable[P, R]) -> Callable[P, R]:
    """The function as torch.compile around it must leave it: it would take times of a step loop for constants.

    A vector field that is compiled itself stays so.
    """
    disabled: list[Callable[P, R]] = []

    @wraps(function)
    def run(*args: P.args, **keys: P.kwargs) -> R:
        if not torch.compiler.is_dynamo_compiling():
            return function(*args, **keys)
        if not disabled:
            disabled.append(torch.compiler.disable(function))
        return disabled[0](*args, **keys)

    return run
