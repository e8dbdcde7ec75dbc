"""What a model may know of a batch of series: what was seen up to each time, and how fast it changed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.series import CONTROLS, MASK, TIMES, VALUES

ALONG_TIME = (TIMES, VALUES, MASK, CONTROLS)


class History(NamedTuple):
    """The observations that a model may see; `values` are 0 wherever `mask` hides them.

    Attributes:
        times: `(n, T)` float64.
        values: `(n, T, C)`.
        mask: `(n, T, C)` bool.
    """

    times: Tensor
    values: Tensor
    mask: Tensor

    @classmethod
    def of(cls, batch: Batch) -> History:
        """That of a batch, whatever stands in it where nothing was seen."""
        mask = batch[MASK]
        return cls(batch[TIMES], batch[VALUES].masked_fill(~mask, 0.0), mask)

    def reversed(self) -> History:
        """The same, read backwards."""
        return History(*(tensor.flip(1) for tensor in self))

    def carried(self) -> Tensor:
        """The latest value seen of each channel at each time `(n, T, C)`; 0 before the first one."""
        last = self._latest()
        return self.values.gather(1, last.clamp(min=0)).masked_fill(last < 0, 0.0)

    def slopes(self) -> Tensor:
        """The slope between the latest two values seen of each channel at each time `(n, T, C)`; 0 without two."""
        last = self._latest()
        before = last.gather(1, (last - 1).clamp(min=0)).masked_fill(last < 1, -1)
        times = self.times[:, :, None].expand(self.values.shape)
        late, early = (index.clamp(min=0) for index in (last, before))
        length = (times.gather(1, late) - times.gather(1, early)).to(self.values.dtype)
        rise = self.values.gather(1, late) - self.values.gather(1, early)
        return (rise / length.masked_fill(before < 0, 1.0)).masked_fill(before < 0, 0.0)

    def last_times(self) -> Tensor:
        """The index `(n,)` of the last time at which anything was seen; 0 where nothing was."""
        return self._latest().amax((1, 2)).clamp(min=0)

    def _latest(self) -> Tensor:
        """The index of the latest value seen of each channel at each time `(n, T, C)`; -1 before the first one."""
        index = torch.arange(self.mask.shape[1], device=self.mask.device)[None, :, None]
        return torch.where(self.mask, index, -1).cummax(1).values


def at_index(tensor: Tensor, index: Tensor) -> Tensor:
    """Of `tensor` `(n, T, ...)` what stands at an index `(n,)` of each sample, `(n, ...)`."""
    return tensor[torch.arange(len(tensor), device=tensor.device), index]


def starting_at(batch: Batch, first: Tensor) -> Batch:
    """Each series from its own time of index `first` `(n,)` on; at the end its last time is repeated."""
    index = _moved(batch[TIMES], first)
    return {
        name: tensor[torch.arange(len(tensor), device=tensor.device)[:, None], index] if name in ALONG_TIME else tensor
        for name, tensor in batch.items()
    }


def put_back(later: Tensor, earlier: Tensor, first: Tensor) -> Tensor:
    """The reverse of `starting_at` for `later` `(n, T, C)`, with `earlier` `(n, T, C)` before each index `first`."""
    own = torch.arange(later.shape[1], device=later.device) - first[:, None]
    rows = torch.arange(len(later), device=later.device)[:, None]
    return torch.where((own >= 0)[:, :, None], later[rows, own.clamp(min=0)], earlier)


def _moved(times: Tensor, first: Tensor) -> Tensor:
    num_times = times.shape[1]
    return (torch.arange(num_times, device=times.device) + first[:, None]).clamp(max=num_times - 1)
