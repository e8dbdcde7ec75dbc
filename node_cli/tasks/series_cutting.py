"""How series are cut for a loss: long ones are hard to fit from their start alone, as errors grow along a solve."""

from __future__ import annotations

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.series import MASK, SEGMENT, START, TARGET, TIMES

STRATEGIES = {  # of the task, and the keys that each has alone
    "auto": ("window",),
    "full": (),
    "windows": ("window",),
    "growing": ("grow_from", "grow_until"),
    "multiple_shooting": ("num_segments", "continuity"),
}


def first_times(batch: Batch, count: int) -> Batch:
    """The first `count` times of every series."""
    num_times = batch[TIMES].shape[1]
    return {name: t[:, :count] if _is_timed(t, num_times, name) else t for name, t in batch.items()}


def windows(batch: Batch, size: int) -> Batch:
    """Windows of `size` times as samples, `(n * windows, size, ...)`; each begins where the one before it ends.

    Of each channel a window shows its first observation; an error counts at all others.
    """
    cut = _pieces(batch, size)
    observed = cut[MASK] | cut[TARGET]
    first = observed & (observed.cumsum(1) == 1)
    return cut | {MASK: first, TARGET: observed & ~first, START: torch.full_like(cut[START], -1)}


def segments(batch: Batch, count: int) -> tuple[Batch, int]:
    """As many pieces of every series as samples, numbered by `segment`; and how many there are of a series.

    A piece ends at the time where the next one begins; the error of that time counts in the next one.
    """
    num_times = batch[TIMES].shape[1]
    size = max(2, -(-(num_times - 1) // count) + 1)
    cut = _pieces(batch, size)
    num_pieces = len(cut[TIMES]) // len(batch[TIMES])
    number = torch.arange(num_pieces, device=cut[TIMES].device).repeat(len(batch[TIMES]))
    target = cut[TARGET].clone()
    target[number < num_pieces - 1, -1] = False
    return cut | {TARGET: target, SEGMENT: number}, num_pieces


def jumps_between(pieces: Tensor, count: int) -> Tensor:
    """Where each of `count` pieces of a series ends, less where the next one begins: `(n, count - 1, C)`."""
    ends = pieces.view(-1, count, *pieces.shape[1:])
    return ends[:, :-1, -1] - ends[:, 1:, 0]


def _pieces(batch: Batch, size: int) -> dict[str, Tensor]:
    """Pieces that share the times between them; what is missing at the end of the last repeats the last time."""
    times = batch[TIMES]
    num_series, num_times = times.shape
    starts = torch.arange(0, max(num_times - 1, 1), size - 1, device=times.device)
    place = starts[:, None] + torch.arange(size, device=times.device)
    inside, place = (place < num_times).flatten(), place.clamp(max=num_times - 1).flatten()
    cut = {}
    for name, tensor in batch.items():
        if _is_timed(tensor, num_times, name):
            cut[name] = tensor[:, place].reshape(num_series * len(starts), size, *tensor.shape[2:])
        else:
            cut[name] = tensor.repeat_interleave(len(starts), dim=0)
    there = inside.view(1, len(starts), size, 1).expand(num_series, -1, -1, 1).reshape(-1, size, 1)
    return cut | {MASK: cut[MASK] & there, TARGET: cut[TARGET] & there}


def _is_timed(tensor: Tensor, num_times: int, name: str) -> bool:
    return name == TIMES or (tensor.dim() == 3 and tensor.shape[1] == num_times)
