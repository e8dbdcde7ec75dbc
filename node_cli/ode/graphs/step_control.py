"""What chooses the size of a step, in tensors: the part of it that goes into a graph."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from functools import cache, cached_property
from types import FunctionType

import torch
from torch import Tensor

from node_cli.ode import control
from node_cli.ode.control import CUT_OFF, Controller, Norm


@dataclass(frozen=True)
class Control:
    """What chooses the size of a step, apart from the tolerances, which have these shapes; the controller is new.

    Of own times, the steps are joint, or those of each sample. With `stepping_onto` every output time ends a step.
    """

    norm: Norm
    tolerance_shapes: tuple[torch.Size, ...]
    controller: Controller
    max_step: float
    is_joint: bool
    stepping_onto: bool

    @cached_property
    def key(self) -> Hashable:
        """The same for two that are equal."""
        own = (self.norm, self.tolerance_shapes, self.max_step, self.is_joint, self.stepping_onto)
        return _only_one((*own, *vars(self.controller).values()))

    @property
    def description(self) -> str | None:
        """The same for two that are equal, in all processes; None: the norm is a user's."""
        if not isinstance(self.norm, FunctionType) or self.norm.__module__ != control.__name__:
            return None
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return str({**own, "norm": self.norm.__name__, "controller": vars(self.controller)})


@cache
def _only_one(values: Hashable) -> object:
    """To look something up by all the values takes long beside a small solve."""
    return object()


def next_time(ends: Tensor, t: Tensor) -> Tensor:
    """The time that comes after `t`."""
    sign = torch.sign(ends[-1] - t)
    after = torch.where(sign * (ends - t) > 0, sign * ends, torch.inf).amin(0)
    return torch.where(sign == 0, t, sign * after)


def decided(
    controller: Controller, t0: Tensor, t1: Tensor, end: Tensor, step: Tensor, memory: list[Tensor], ratio: Tensor
) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
    """After an attempt: the factor, the step to try next, the memory, and whether the step is kept."""
    last, before, may_grow = memory
    factor, *after = controller.changed(torch, ratio, last, before, may_grow > 0)
    tried, is_active, moves = (t1 - t0).abs(), t0 != end, ratio <= 1
    is_kept = is_active & moves
    if tried.dim() > step.dim():  # times of their own, but one step for all
        tried, is_active = tried.amax(), is_active.any()
    proposed = tried * factor
    meant = torch.where(tried < CUT_OFF * step, torch.maximum(step, proposed), proposed)
    following = torch.where(is_active, torch.where(moves, meant, proposed), step)
    return factor, following, [torch.where(is_active, *pair) for pair in zip(after, memory, strict=True)], is_kept
