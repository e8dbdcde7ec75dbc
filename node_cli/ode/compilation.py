"""torch.compile for a vector field or a whole step. Times and step sizes are tensors: no step is compiled again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache, lru_cache
from types import FunctionType

import torch
from torch import Tensor

from node_cli.ode.stepping import Slope, plain_step
from node_cli.ode.tableaus import TABLEAUS

log = logging.getLogger(__name__)

COMPILE = ("none", "vector_field", "step")
NUM_KEPT = 32  # vector fields whose compiled code is kept


@lru_cache(maxsize=NUM_KEPT)
def compiled_vector_field(vector_field: Slope, device_type: str) -> Slope:
    """The vector field through torch.compile; as it is where nothing can be compiled."""
    compiled: Slope = torch.compile(vector_field) if can_compile(device_type) else vector_field
    return compiled


class StepFunctions:
    """A step of one method from one vector field, compiled as a whole; on a GPU as a CUDA graph."""

    def __init__(self, method: str, vector_field: Slope, device_type: str) -> None:
        step = plain_step(TABLEAUS[method], vector_field)
        mode = "reduce-overhead" if device_type == "cuda" else None

        def rerun(t0: Tensor, t1: Tensor, y: Tensor, with_last_stage: bool) -> tuple[Tensor, Tensor]:
            return step(t0, t1, y, vector_field(t0.to(y.dtype), y), with_last_stage)

        # With the slope at the start given, and without a graph; and from the state alone, to be differentiated.
        self.attempt: Callable[..., tuple[Tensor, Tensor]] = torch.compile(_with_own_code(step), mode=mode)
        self.rerun: Callable[..., tuple[Tensor, Tensor]] = torch.compile(_with_own_code(rerun), mode=mode)


def _with_own_code(function: FunctionType) -> FunctionType:
    """A copy: the compiler counts recompilations by code, which all vector fields and methods would share."""
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


@lru_cache(maxsize=NUM_KEPT)
def step_functions(method: str, vector_field: Slope, device_type: str) -> StepFunctions | None:
    """The compiled steps; None where nothing can be compiled."""
    return StepFunctions(method, vector_field, device_type) if can_compile(device_type) else None


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
