"""A linear autoregression that knows the gaps of time: the simplest baseline that learns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from node_cli.models.series.parts.autoregression import Autoregressive, Step
from node_cli.ode.checks import require_at_least


class LinearAr(Autoregressive):
    """The next values are the current ones plus the gap times a linear map.

    The map is of the current values, of the `lags - 1` latest slopes between values, seen or predicted, and of the
    inputs at both ends of the gap. All of its numbers start at 0, which is persistence; with the identity for the
    latest slope it is constant velocity.

    Raises:
        ValueError: `lags` is below 1.
    """

    def __init__(self, *, num_channels: int, num_controls: int, num_statics: int, lags: int) -> None:
        super().__init__()
        require_at_least("lags", lags, 1)
        self.num_slopes = lags - 1
        self.map = nn.Linear(lags * num_channels + 2 * (num_controls + num_statics), num_channels)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def stepper(self, batch_size: int, like: Tensor) -> Step:
        """See `Autoregressive.stepper`."""
        slopes = [like.new_zeros(batch_size, like.shape[-1])] * self.num_slopes  # the latest one first
        last: Tensor | None = None
        last_gap = like.new_ones(batch_size, 1)

        def step(current: Tensor, mask: Tensor, gap: Tensor, inputs: Tensor | None) -> Tensor:
            nonlocal slopes, last, last_gap
            if last is not None:
                length = torch.where(last_gap > 0, last_gap, 1.0)  # padding repeats a time
                slopes = [(current - last) / length, *slopes][: self.num_slopes]
            last, last_gap = current, gap
            read = [current, *slopes, *([] if inputs is None else [inputs])]
            following: Tensor = current + gap * self.map(torch.cat(read, dim=1))
            return following

        return step
