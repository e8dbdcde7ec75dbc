"""A model of series with a closed form, and series for it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.series import MASK, START, TARGET, TIMES, VALUES, SeriesModel, Units


class Line(SeriesModel):
    """From the first value that is seen, with a slope of its own for each channel."""

    def __init__(self, slope: list[float]) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))
        self.weight_of_penalty = 0.0
        self.pruned: list[float] = []

    def forward(self, batch: Batch) -> Tensor:
        assert TARGET not in batch
        times = batch[TIMES].float()[..., None]
        first = batch[MASK].int().argmax(1)  # (n, C)
        at = times.expand(-1, -1, first.shape[1]).gather(1, first[:, None])
        return batch[VALUES].gather(1, first[:, None]) + self.slope * (times - at)

    def one_step(self, batch: Batch) -> Tensor:
        seen = torch.where(batch[MASK], batch[VALUES], torch.nan)
        steps = batch[TIMES].float().diff(dim=1)[..., None]
        return torch.cat([torch.full_like(seen[:, :1], torch.nan), seen[:, :-1] + self.slope * steps], 1)

    def penalty(self) -> Tensor | None:
        return self.weight_of_penalty * self.slope.square().sum() if self.weight_of_penalty else None

    def prune(self, progress: float) -> None:
        self.pruned.append(progress)

    def slopes(self, batch: Batch) -> Tensor:
        return self.slope.expand_as(batch[VALUES])

    def named_values(self) -> Mapping[str, Tensor]:
        return {f"slope_{channel}": slope for channel, slope in enumerate(self.slope)}


UNITS = Units(mean=(10.0, 20.0), std=(2.0, 4.0), is_log=False, t0=1900.0, time_scale=5.0)
KEYS = {
    "loss": "mse",
    "channel_weights": None,
    "strategy": "full",
    "window": 3,
    "num_segments": 2,
    "continuity": 1.0,
    "grow_from": 0.25,
    "grow_until": 0.5,
    "match_until": 0.0,
    "season": None,
}


def lines(slopes: tuple[float, float], num_seen: int, num_times: int = 8) -> dict[str, Tensor]:
    """Two series of scaled values `start + slope * t`, of which the first `num_seen` times are shown."""
    times = torch.linspace(0, 7, num_times, dtype=torch.float64).expand(2, -1)
    start = torch.tensor([[0.5, -1.0], [2.0, 1.0]])
    values = start[:, None] + torch.tensor(slopes) * times.float()[..., None]
    seen = (torch.arange(num_times) < num_seen)[None, :, None].expand_as(values)
    return {TIMES: times, VALUES: values, MASK: seen, TARGET: ~seen, START: torch.arange(2)}
