"""What an encoder reads of a batch of series: the times at which anything was seen, without the others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.models.series.parts.history import History
from node_cli.ode.block import SolvingModule
from node_cli.series import CONTROLS, STATICS


class Reading(NamedTuple):
    """The R times of each series at which anything was seen, in the order in which they are read.

    A series with fewer repeats its last one, with `mask` False and `values` 0; one of which nothing was seen repeats
    the time at which reading begins.

    Attributes:
        times: `(n, R)` float64, increasing: the negative of the batch's where they are read backwards.
        gaps: `(n, R)`, the time since the one before; at the first one since the time at which reading begins.
        values: `(n, R, C)`, 0 where nothing was seen.
        mask: `(n, R, C)` bool.
        inputs: `(n, R, k + s)`, controls and statics; k + s may be 0.
        is_read: `(n, R)` bool, False where the last time is repeated.
        num_read: `(n, T)`, how many of the R times were read at each of the batch's, in the order of reading.
    """

    times: Tensor
    gaps: Tensor
    values: Tensor
    mask: Tensor
    inputs: Tensor
    is_read: Tensor
    num_read: Tensor

    @classmethod
    def of(cls, batch: Batch, *, backwards: bool = False, block: SolvingModule | None = None) -> Reading:
        """That of a batch; R is the same for all processes that share the steps of `block`."""
        times, values, mask = History.of(batch)
        controls = batch.get(CONTROLS, values[:, :, :0])
        statics = batch.get(STATICS, values[:, 0, :0])[:, None].expand(*times.shape, -1)
        rows = (times, values, mask, torch.cat([controls, statics], dim=2))
        if backwards:
            times, values, mask, inputs = (tensor.flip(1) for tensor in rows)
            times = -times
        else:
            times, values, mask, inputs = rows
        is_seen = mask.any(2)
        num_read = is_seen.cumsum(1)
        total = num_read[:, -1:]
        longest = max(1, int(total.max()))
        longest = longest if block is None else block.largest(longest, times.device)
        order = torch.arange(longest, device=times.device)
        index = (~is_seen).to(torch.uint8).argsort(dim=1, stable=True)
        index = index.gather(1, order.minimum((total - 1).clamp(min=0)))
        is_read = order < total
        own = times.gather(1, index)

        def picked(tensor: Tensor) -> Tensor:
            return tensor.gather(1, index[:, :, None].expand(*index.shape, tensor.shape[2]))

        mask = picked(mask) & is_read[..., None]
        return cls(
            own,
            own.diff(dim=1, prepend=times[:, :1]).to(values.dtype),
            picked(values) * mask,
            mask,
            picked(inputs),
            is_read,
            num_read,
        )

    def after_each(self, memory: Tensor, first: Tensor | None = None) -> Tensor:
        """Of a memory `(n, R, W)` after each time that was read the last one at each time of the batch `(n, T, W)`.

        Before anything was read it is `first` `(n, W)`; None: 0.
        """
        first = memory.new_zeros(memory[:, 0].shape) if first is None else first
        with_first = torch.cat([first[:, None], memory], dim=1)
        return with_first.gather(1, self.num_read[:, :, None].expand(*self.num_read.shape, memory.shape[2]))
