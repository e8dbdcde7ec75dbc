"""Optimizers of torch without torch's compiler, whose import takes a second."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.optim import Optimizer

COMPILER = "torch._dynamo"
METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """The same optimizer, which does not import the compiler; `kind` itself if that is loaded, or if it is not torch's.

    Torch wraps these methods, and `step`, to keep its compiler out of them, for which it imports it first. Whatever
    else it wraps them in stays.
    """
    if COMPILER in sys.modules or kind is not vars(torch.optim).get(kind.__name__):
        return kind
    own = {name: _unwrapped(getattr(kind, name)) for name in METHODS}
    step = _unwrapped(kind.step)
    if step is not kind.step:
        own["step"] = _as_differentiable(step)
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, "__doc__": kind.__doc__, **own})


def _unwrapped(method: Any) -> Any:
    while COMPILER in method.__code__.co_names:  # of a wrapper that imports it
        method = method.__wrapped__
    return method


def _as_differentiable(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step with gradients only where the optimizer asks for them, as torch's own wrapper has it."""

    @wraps(step)
    def run(self: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, closure)

    return run
