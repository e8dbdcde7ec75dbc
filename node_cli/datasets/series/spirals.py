"""Spirals in two directions, on which latent ODEs were first shown."""

from __future__ import annotations

import math

import torch

from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.datasets.series.source import series_dataset
from node_cli.datasets.series.systems import LARGEST
from node_cli.ode.checks import require, require_at_least

NUM_POINTS, END = 1_000, 6 * math.pi  # of a whole curve, which turns three times
LAST_POINT = 800  # of a series: later the clockwise curve leaves fast what it was before
DIRECTIONS = ("clockwise", "counterclockwise")


@series_dataset
def spirals(
    num_series: int, num_times: int, num_beyond: int, train_beyond: bool, noise: float, data_seed: int
) -> RawSeries:
    """Pieces of two spirals, one clockwise and one counterclockwise, half of the series each; two classes.

    The curves have 1,000 points at times from 0 to 6 pi: counterclockwise of radius 0.3 t at the angle t around (5, 0),
    clockwise of radius 15 / z at the angle z = 6 pi + 1 - t around (-5, 0). A series begins at a random one of them,
    at least `num_times` after the curve does, has the next `num_times + num_beyond`, and ends within the first 800.
    Its own time begins at 0.

    With `train_beyond`, training has all times of its series, of which the first `num_times` are seen. Without it, it
    has `num_times` of each alone: the first ones of two in four, the last ones of the others. So it has been where val
    and test go on, but never for longer.

    Args:
        num_series: how many series.
        num_times: the first times of each, those that are seen.
        num_beyond: further times, for extrapolation.
        train_beyond: training has these of its series too.
        noise: std of the Gaussian noise on each value.
        data_seed: fixes starts and noise.

    Source: Chen et al. 2018, arXiv 1806.07366, section 5.1; the curves are those of torchdiffeq's
    `examples/latent_ode.py`, whose series start at least 100 points away from both ends and end after 100.

    Raises:
        ValueError: a key is out of range.
    """
    _require_fit(num_series, num_times, num_beyond)
    require_at_least("noise", noise, 0)
    require_at_least("data_seed", data_seed, 0)
    length = num_times + num_beyond
    generator = torch.Generator().manual_seed(data_seed)
    times = torch.linspace(0, END, NUM_POINTS, dtype=torch.float64)
    curves = torch.stack([_clockwise(times), _counterclockwise(times)])
    directions = torch.arange(num_series) % len(DIRECTIONS)
    starts = num_times + torch.randint(LAST_POINT - num_times - length + 1, (num_series,), generator=generator)
    clean = curves[directions[:, None], starts[:, None] + torch.arange(length)]
    values = clean + noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    pairs = enumerate(zip(values, clean, strict=True), start=1)
    return RawSeries(
        tuple(
            Series(
                str(k), times[:length], noisy, truth=exact, train_start=0 if train_beyond else num_beyond * (k % 4 > 1)
            )
            for k, (noisy, exact) in pairs
        ),
        ("x", "y"),
        channel_units=("1", "1"),
        is_computed=True,
        targets=directions,
        class_names=DIRECTIONS,
        train_times=num_times,
        trains_beyond=train_beyond,
    )


def _require_fit(num_series: int, num_times: int, num_beyond: int) -> None:
    require_at_least("num_series", num_series, 2)
    require_at_least("num_times", num_times, 2)
    require(num_times <= LAST_POINT // 2, f"num_times must be at most {LAST_POINT // 2}", num_times)
    require_at_least("num_beyond", num_beyond, 0)
    length = num_times + num_beyond
    if num_times + length > LAST_POINT:
        raise ValueError(
            f"num_beyond must be at most {LAST_POINT - 2 * num_times} with dataset.num_times={num_times}, as a series "
            f"ends within {LAST_POINT} points, got {num_beyond}"
        )
    if num_series * length > LARGEST:
        raise ValueError(f"num_series must be at most {LARGEST // length:,}, got {num_series:,}")


def _clockwise(times: torch.Tensor) -> torch.Tensor:
    angles = END + 1 - times
    return _around(-5.0, 15 / angles, angles)


def _counterclockwise(times: torch.Tensor) -> torch.Tensor:
    return _around(5.0, 0.3 * times, times)


def _around(x: float, radii: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    return torch.stack([x + radii * angles.cos(), radii * angles.sin()], dim=1)
