"""Solves of several processes in step: each has its share of a batch, and all take the steps of the whole batch.

The processes are those of torch.distributed's default group. Their shares may differ in size; none may be empty. What
all_reduce returns is the same on every process to the last bit, and nothing else decides about a step. Every function
here waits for all processes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from node_cli.ode import control
from node_cli.ode.control import Norm, Tolerance
from node_cli.ode.states import Layout, Parts
from node_cli.ode.tableaus import Array


def has_others() -> bool:
    """Whether there are other processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def of_all_processes(tolerance: Tolerance, device: torch.device) -> Tolerance:
    """The same, for a state on a device, of all processes; a norm that is not of `control.py` is so already."""
    norms: dict[Norm, Norm] = {control.rms: rms, control.largest: largest}
    norm = norms.get(tolerance.norm, tolerance.norm)
    return replace(tolerance, norm=norm, largest=partial(largest_of, device=device))


def rms(ratios: Tensor) -> Tensor:
    """Root mean square over everything in all processes."""
    return largest_rms((ratios,))


def largest_rms(parts: Parts) -> Tensor:
    """The largest of the parts' root mean squares, each over all processes.

    Parts that are the same in all processes count as often as there are processes, which changes nothing.
    """
    squares = [torch.linalg.vector_norm(part).double().square() for part in parts]
    counts = [square.new_full((), part.numel()) for square, part in zip(squares, parts, strict=True)]
    sums = torch.stack([torch.stack(squares), torch.stack(counts)])
    dist.all_reduce(sums)
    return (sums[0] / sums[1]).sqrt().max().to(parts[0].dtype)


def largest(ratios: Tensor) -> Tensor:
    """Greatest magnitude over everything in all processes; infinite where one is not a number."""
    norm: Tensor = torch.linalg.vector_norm(ratios, math.inf)
    norm = norm.nan_to_num(nan=math.inf, posinf=math.inf)  # a maximum over processes may lose a NaN
    dist.all_reduce(norm, dist.ReduceOp.MAX)
    return norm


def largest_of(values: Array | bool, device: torch.device) -> Array:
    """Each number as the largest that a process has there."""
    found = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    numbers: Array = found.cpu().numpy()
    return numbers


def all_agree(is_so: bool, device: torch.device) -> bool:
    """Whether it is so in all processes."""
    return not largest_of(not is_so, device)


def summed(parts: Parts) -> Parts:
    """Each part as its sum over all processes."""
    if not parts:
        return parts
    layout = Layout.of(parts)
    flat = layout.flatten(parts)
    dist.all_reduce(flat)
    return layout.split(flat)


def equal_shares(sums: Parts) -> Parts:
    """What each process has to add for these sums, which all of them know."""
    return tuple(part / dist.get_world_size() for part in sums)
