"""A state of positions and velocities, some of which are channels of the data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from node_cli.models.series.parts.ode_series import Dynamics
from node_cli.series import Units


class PairedDynamics(Dynamics):
    """Dynamics whose state is positions `(n, P)`, scaled as their channels, then their rates of change in scaled time.

    A channel of velocities in the user's units is a rate in other units. A rate without a channel is the slope between
    two observations, to which `num_extra` numbers are added, learned or encoded.

    Args:
        positions: the channels that are positions.
        velocities: for each of them the channel that is its velocity, or None.
        units: of all channels.
    """

    positions: Tensor
    known: Tensor
    unknown: Tensor
    channels: Tensor
    order: Tensor
    factor: Tensor
    offset: Tensor

    def __init__(self, positions: Sequence[int], velocities: Sequence[int | None], units: Units) -> None:
        super().__init__()
        pairs = [(p, v) for p, v in zip(positions, velocities, strict=True) if v is not None]
        channels = [v for _, v in pairs]
        self.num_positions = len(positions)
        self.num_states = 2 * len(positions)
        self.num_extra = len(positions) - len(pairs)
        self.is_observed = self.num_extra == 0
        indices = {
            "positions": list(positions),
            "known": [i for i, v in enumerate(velocities) if v is not None],
            "unknown": [i for i, v in enumerate(velocities) if v is None],
            "channels": channels,
            "order": [[*positions, *channels].index(channel) for channel in range(len(positions) + len(channels))],
        }
        for name, numbers in indices.items():
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.int64), persistent=False)
        scales = {  # rate = velocity * factor + offset
            "factor": [units.std[v] * units.time_scale / units.std[p] for p, v in pairs],
            "offset": [units.mean[v] * units.time_scale / units.std[p] for p, v in pairs],
        }
        for name, factors in scales.items():
            self.register_buffer(name, torch.tensor(factors), persistent=False)

    def initial(self, values: Tensor, slopes: Tensor, extra: Tensor) -> Tensor:
        """See `Dynamics.initial`."""
        estimated = slopes[:, self.positions].index_add(1, self.unknown, extra)
        rates = estimated.index_copy(1, self.known, self._rates(values))
        return torch.cat([values[:, self.positions], rates], dim=1)

    def values(self, y: Tensor) -> Tensor:
        """See `Dynamics.values`."""
        q, rates = y.split(self.num_positions, dim=-1)
        velocities = (rates[..., self.known] - self.offset) / self.factor
        return torch.cat([q, velocities], dim=-1)[..., self.order]

    def value_slopes(self, y: Tensor, dy: Tensor) -> Tensor:
        """See `Dynamics.value_slopes`."""
        dq, slopes = dy.split(self.num_positions, dim=-1)
        return torch.cat([dq, slopes[..., self.known] / self.factor], dim=-1)[..., self.order]

    def observed(self, y: Tensor, values: Tensor, mask: Tensor, slopes: Tensor) -> Tensor:
        """See `Dynamics.observed`; a rate without a channel is estimated anew where its position is seen."""
        q, rates = y.split(self.num_positions, dim=1)
        is_seen = mask[:, self.positions]
        known = torch.where(mask[:, self.channels], self._rates(values), rates[:, self.known])
        rates = torch.where(is_seen, slopes[:, self.positions], rates).index_copy(1, self.known, known)
        return torch.cat([torch.where(is_seen, values[:, self.positions], q), rates], dim=1)

    def _rates(self, values: Tensor) -> Tensor:
        return values[:, self.channels] * self.factor + self.offset
