"""Series computed from an equation: starts and times by a seed, an accurate solve in float64, then noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.source import series_dataset, with_keys
from node_cli.ode.checks import require_at_least, require_positive
from node_cli.ode.stepping import plain_step
from node_cli.ode.tableaus import DOPRI8

LARGEST = 10_000_000  # values that a dataset of ours computes


class System(NamedTuple):
    """An autonomous equation with its starts.

    Attributes:
        channel_names: of a state.
        slope: of states `(n, channels)`.
        starts: makes n states of the random numbers of a generator.
        max_step: steps of order 8 of this length are accurate to about 1e-10.
        is_positive: the noise is that of the logarithm.
    """

    channel_names: tuple[str, ...]
    slope: Callable[[Tensor], Tensor]
    starts: Callable[[int, torch.Generator], Tensor]
    max_step: float
    is_positive: bool = False


@dataclass(frozen=True)
class SystemKeys:
    """What is computed of a system.

    Args:
        num_series: how many series.
        num_times: times of each, the first one 0.
        t1: the last time, where they are evenly spaced.
        noise: std of the Gaussian noise on each value.
        irregular: times are drawn uniformly from 0 to `t1`, for each series anew; false: they are evenly spaced.
        data_seed: fixes starts, times and noise.

    Raises:
        ValueError: a key is out of range.
    """

    num_series: int
    num_times: int
    t1: float
    noise: float
    irregular: bool
    data_seed: int

    def __post_init__(self) -> None:
        require_at_least("num_series", self.num_series, 1)
        require_at_least("num_times", self.num_times, 2)
        require_at_least("noise", self.noise, 0)
        require_at_least("data_seed", self.data_seed, 0)
        require_positive(t1=self.t1)
        if self.num_series * self.num_times > LARGEST:
            raise ValueError(f"num_times must be at most {LARGEST // self.num_series:,}, got {self.num_times:,}")


def system_dataset(make: Callable[[], System]) -> Callable[..., Dataset]:
    """A dataset of a system: it takes `SystemKeys`, and the keys of every dataset of series."""
    return series_dataset(with_keys(make, SystemKeys, computed))


def computed(system: System, keys: SystemKeys) -> RawSeries:
    """The series of a system."""
    generator = torch.Generator().manual_seed(keys.data_seed)
    starts = system.starts(keys.num_series, generator)
    times = _times(keys, generator)
    usual = system.starts(keys.num_series, torch.Generator().manual_seed(0))
    if keys.data_seed and not (keys.noise or keys.irregular) and torch.equal(starts, usual):
        raise ValueError(
            f"data_seed has no effect on a fixed start, without noise and irregular times, got {keys.data_seed}: set "
            "it to 0"
        )
    values = solved(system, starts, times)
    noise = keys.noise * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    values = values * noise.exp() if system.is_positive else values + noise
    series = tuple(Series(str(number), *pair) for number, pair in enumerate(zip(times, values, strict=True), start=1))
    units = ("1",) * len(system.channel_names)
    return RawSeries(series, system.channel_names, channel_units=units, is_computed=True)


def _times(keys: SystemKeys, generator: torch.Generator) -> Tensor:
    shape = (keys.num_series, keys.num_times)
    if not keys.irregular:
        return torch.linspace(0, keys.t1, keys.num_times, dtype=torch.float64).repeat(keys.num_series, 1)
    times = keys.t1 * torch.rand(shape, generator=generator, dtype=torch.float64).sort(dim=1).values
    times[:, 0] = 0
    return times


def solved(system: System, starts: Tensor, times: Tensor) -> Tensor:
    """States `(n, T, channels)` at times `(n, T)`, by steps that are equal between two times."""
    step = plain_step(DOPRI8, lambda _, y: system.slope(y))
    y, states = starts, [starts]
    for t, end in zip(times.T[:-1, :, None], times.T[1:, :, None], strict=True):
        number = math.ceil((end - t).max().item() / system.max_step)
        for k in range(number):
            t0, t1 = t + (end - t) * (k / number), t + (end - t) * ((k + 1) / number)
            y = step(t0, t1, y, system.slope(y))[0]
        states.append(y)
    return torch.stack(states, dim=1)
