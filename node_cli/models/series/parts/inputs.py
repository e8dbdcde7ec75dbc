"""What drives a series from outside: controls between their times, and statics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.series import CONTROLS, STATICS, TIMES

BETWEEN = ("hold", "linear", "hermite")
Source = Callable[[Tensor], Tensor]  # a time, 0-dim or (n, 1), to inputs (n, k + s)


class Inputs:
    """Controls and statics of a batch as functions of time.

    `hold` keeps a control until its next time. `linear` and `hermite` (cubic, whose slope at a time is that since the
    time before) pass through the controls: between two times they look ahead to the second one, and so do states
    there; no state at a time depends on a later control. Source: Morrill et al. 2021, arXiv:2106.11028.
    """

    def __init__(self, times: Tensor, controls: Tensor | None, statics: Tensor | None, between: str) -> None:
        self._times = times
        self._controls = None if controls is None else _without_padding(times, controls)
        self._statics = statics
        self._between = between

    @classmethod
    def of(cls, batch: Batch, between: str) -> Inputs | None:
        """Those of a batch, if it has any."""
        if CONTROLS not in batch and STATICS not in batch:
            return None
        return cls(batch[TIMES], batch.get(CONTROLS), batch.get(STATICS), between)

    def at_times(self) -> Tensor:
        """Controls, then statics, at all times `(n, T, k + s)`."""
        return torch.stack([self._with_statics(self._at(i)) for i in range(self._times.shape[1])], dim=1)

    def pieces(self) -> Iterator[tuple[int, int, Source]]:
        """First and last index of each stretch of times in which the inputs do not jump, and the inputs in it."""
        last = self._times.shape[1] - 1
        seams = [0, *self._jumps(), last]
        for first, end in zip(seams[:-1], seams[1:], strict=True):
            yield first, end, self.source(first)

    def source(self, index: int) -> Source:
        """The inputs from the time of this index on, up to their next jump."""
        if self._controls is None or self._between == "hold":
            constant = self._with_statics(self._at(index))
            return lambda t: constant
        return lambda t: self._with_statics(self._interpolated(t))

    def _at(self, index: int) -> Tensor | None:
        return None if self._controls is None else self._controls[:, index]

    def _with_statics(self, controls: Tensor | None) -> Tensor:
        parts = [part for part in (controls, self._statics) if part is not None]
        return torch.cat(parts, dim=1)

    def _jumps(self) -> list[int]:
        if self._controls is None or self._between != "hold":
            return []
        changes = (self._controls[:, 1:-1] != self._controls[:, :-2]).any(2).any(0)
        jumps: list[int] = (changes.nonzero()[:, 0] + 1).tolist()
        return jumps

    def _interpolated(self, t: Tensor) -> Tensor:
        assert self._controls is not None
        controls, times = self._controls, self._times.to(t.dtype)
        rows = torch.arange(len(times), device=times.device)
        t = t.reshape(-1, 1).expand(len(times), 1).contiguous().clamp(times[:, :1], times[:, -1:])
        end = torch.searchsorted(times, t, right=True)[:, 0].clamp(1, times.shape[1] - 1)
        start, before = end - 1, (end - 2).clamp(min=0)
        t0, t1 = times[rows, start, None], times[rows, end, None]
        length = t1 - t0
        theta = (t - t0) / torch.where(length > 0, length, 1.0)
        x0, rise = controls[rows, start], controls[rows, end] - controls[rows, start]
        if self._between == "linear":
            return x0 + theta * rise
        since = t0 - times[rows, before, None]
        tangent = torch.where(
            since > 0, (x0 - controls[rows, before]) * length / torch.where(since > 0, since, 1.0), rise
        )
        return x0 + theta * (tangent + theta * (rise - tangent) * (2 - theta))


def _without_padding(times: Tensor, controls: Tensor) -> Tensor:
    """The controls, where a series repeats its last time those of that time."""
    index = torch.arange(times.shape[1], device=times.device).expand(times.shape)
    is_new = torch.cat([torch.ones_like(times[:, :1], dtype=torch.bool), times[:, 1:] > times[:, :-1]], dim=1)
    index = torch.where(is_new, index, 0).cummax(1).values
    return controls.gather(1, index[:, :, None].expand(controls.shape))
