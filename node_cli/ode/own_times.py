"""Output times of each sample's own: which are refused, and how times that repeat are left out of a solve."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from node_cli.ode import synchronised
from node_cli.ode.solution import Solution
from node_cli.ode.states import Parts, on_host, require_order


def joined(ts: Tensor, *, tolerance: float = 0.0, is_shared: bool = False) -> Tensor:
    """The first row `(T,)` of times `(batch, T)` if all rows are it but for `tolerance`; else `ts`.

    If solves are `is_shared` by processes, the rows of all of them must be, so that all make the same solve.
    """
    row = ts[0]
    if is_shared:
        row = torch.from_numpy(synchronised.largest_of(np.array(on_host(row)), ts.device)).to(ts)
    are_same = bool(((ts - row).abs() <= tolerance).all())
    if is_shared:
        are_same = synchronised.all_agree(are_same, ts.device)
    return row if are_same else ts


@dataclass(frozen=True)
class AskedTimes:
    """The times of a solve: of all samples `(T,)`, or of each sample's own `(batch, T)`.

    Steps go through `ts`. Of own times, these are each row without repetitions, as long as the longest one; a shorter
    one repeats its last time up to there. `rank` `(T, batch)` is the position in them of each asked time (None: they
    are the same). So a repeated time costs nothing; it is the same output as the first one, which has the gradient.
    """

    ts: Tensor
    rank: Tensor | None = None

    @classmethod
    def of(cls, ts: Tensor, y0: Tensor | Parts, *, may_be_joined: bool = False, is_shared: bool = False) -> AskedTimes:
        """Those that were asked for; if they `may_be_joined`, rows that are all the same become one for all samples.

        If the solve `is_shared` by processes, the longest row is that of all of them.

        Raises:
            ValueError: they are not a row for each sample, or `require_order` refuses a row.
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
        rank, longest = is_new.cumsum(1) - 1, is_new.sum(1).max()
        if is_shared:
            longest = synchronised.largest_of(longest, y0.device).astype(int)
        asked = None
        if not is_new.all() or longest > times.shape[1]:
            sample, position = is_new.nonzero()
            order = np.zeros((len(times), longest), dtype=np.int64)
            order[sample, rank[is_new]] = position
            ts = ts.gather(1, torch.from_numpy(np.maximum.accumulate(order, 1)).to(ts.device))
            asked = torch.from_numpy(rank.T).to(ts.device)
        return cls(ts[0] if may_be_joined and longest > 1 and (times == times[0]).all() else ts, asked)

    def spread(self, solution: Solution[Tensor]) -> Solution[Tensor]:
        """The solution at all asked times, from that at `ts`."""
        if self.rank is None:
            return solution
        sample = torch.arange(self.rank.shape[1], device=self.rank.device)
        return replace(solution, ys=solution.ys[self.rank, sample])
