"""Output times of each sample's own: which are refused, and how times that repeat are left out of a solve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode import synchronised
from node_cli.ode.states import Parts, on_host, require_order


@dataclass(frozen=True)
class AskedTimes:
    """The times of a solve: those of all samples `(T,)`, or of each sample's own `(batch, T)`.

    Steps go through `ts`. Of own times, that is each row without the times that repeat the one before, as long as the
    longest row; a shorter one ends in its last time, repeated. `rank` `(T, batch)` is the position there of every
    asked time, None: they are the same. So repeated times cost nothing, and the gradient of an output that they share
    is that of the first of them.
    """

    ts: Tensor
    rank: Tensor | None = None

    @classmethod
    def of(cls, ts: Tensor, y0: Tensor | Parts, *, may_be_joined: bool = False, is_shared: bool = False) -> AskedTimes:
        """From what was asked for. If they `may_be_joined`, rows that are all the same are one for all samples.

        If the solve `is_shared` by processes, the longest row is that of all of them.

        Raises:
            ValueError: they are not a row for each sample, or a row is not finite, or neither rises nor falls.
        """
        if ts.dim() != 2:
            return cls(ts)
        if isinstance(y0, tuple) or y0.dim() == 0 or len(y0) != len(ts) or ts.shape[1] == 0:
            shapes = [tuple(part.shape) for part in y0] if isinstance(y0, tuple) else tuple(y0.shape)
            raise ValueError(
                "ts must be (times,), or (batch, times) with a row for each sample of the state (batch, ...), got "
                f"{tuple(ts.shape)} for a state of shape {shapes}"
            )
        times = np.array(on_host(ts))
        require_order(times, y0.dtype)
        is_new = np.diff(times, prepend=np.nan) != 0
        rank = is_new.cumsum(1) - 1
        count = int(rank.max()) + 1
        if is_shared:
            count = int(synchronised.largest_of(np.array(count), y0.device))
        sample, position = np.nonzero(is_new)
        order = np.full((len(times), count), -1)
        order[sample, rank[sample, position]] = position
        order = np.maximum.accumulate(order, 1)
        device = ts.device
        if count < times.shape[1] or not is_new.all():
            ts = ts.gather(1, torch.from_numpy(order).to(device))
            asked: Any = torch.from_numpy(rank.T).to(device)
        else:
            asked = None
        if may_be_joined and count > 1 and (np.diff(np.take_along_axis(times, order, 1), axis=0) == 0).all():
            ts = ts[0]
        return cls(ts, asked)

    def spread(self, ys: Tensor) -> Tensor:
        """The states at all asked times, from those at `ts`, `(times, batch, ...)`."""
        return ys if self.rank is None else ys[self.rank, torch.arange(ys.shape[1], device=ys.device)]
