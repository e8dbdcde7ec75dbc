"""Errors of forecasts, by how far ahead they look, beside forecasts that need no training."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.series import MASK, TARGET, TIMES, VALUES, Units, visible

EARTH_RADIUS = 6371.0  # km
Measure = Callable[[Tensor], float]  # of the places (n, T, C) that count
Scale = Callable[[Tensor], Tensor]


def persistence(batch: Batch) -> Tensor:
    """The last value seen before each time, `(n, T, C)`; NaN where none was."""
    return _look_up(batch[VALUES], _last_seen(batch[MASK], 1))


def same_as_last_season(batch: Batch, season: int) -> Tensor:
    """The value seen `season` times before, or twice as many, ...: the latest that was; NaN where none was."""
    seen, result = batch[MASK], torch.full_like(batch[VALUES], torch.nan)
    for back in range(season * ((seen.shape[1] - 1) // season), 0, -season):
        was_seen = seen[:, :-back]
        result[:, back:] = torch.where(was_seen, batch[VALUES][:, :-back], result[:, back:])
    return result


def constant_velocity(batch: Batch) -> Tensor:
    """The line through the last two values seen before each time, `(n, T, C)`; NaN where there were fewer."""
    last, one_before = (_last_seen(batch[MASK], count) for count in (1, 2))
    times = batch[TIMES][..., None].expand_as(batch[VALUES])
    t1, t0, y1, y0 = (
        _look_up(tensor, index) for tensor in (times, batch[VALUES].to(times.dtype)) for index in (last, one_before)
    )
    line: Tensor = y1 + (y1 - y0) * (times - t1) / (t1 - t0)
    return line.to(batch[VALUES].dtype)


def steps_ahead(batch: Batch) -> Tensor:
    """How many times lie between the last one that anything was seen at and each later one, `(n, T)`; 1: the next."""
    seen = batch[MASK].any(2, keepdim=True)
    last = _last_seen(seen, 1)[..., 0]
    return torch.where(last >= 0, torch.arange(seen.shape[1], device=seen.device) - last, 0)


def great_circle(predicted: Tensor, observed: Tensor) -> Tensor:
    """Kilometres between places `(..., 2)`, latitude and longitude in degrees."""
    (lat0, lon0), (lat1, lon1) = (place.double().deg2rad().unbind(-1) for place in (predicted, observed))
    haversine = ((lat1 - lat0) / 2).sin().square() + lat0.cos() * lat1.cos() * ((lon1 - lon0) / 2).sin().square()
    return 2 * EARTH_RADIUS * haversine.clamp(max=1).sqrt().asin()


def track_measures(units: Units, places: Sequence[int], batch: Batch, predicted: Tensor) -> dict[str, Measure]:
    """Mean distances in km of predicted positions and of two forecasts that need no training."""
    shown, places = visible(batch), list(places)
    last, line = (units.values(forecast(shown)) for forecast in (persistence, constant_velocity))
    observed = units.values(batch[VALUES])[..., places]
    away, last_away, line_away = (great_circle(each[..., places], observed) for each in (predicted, last, line))
    return {
        "track_km": lambda where: mean(away[where[..., places].all(2)]),
        "persistence_track_km": lambda where: mean(made(last_away[where[..., places].all(2)])),
        "velocity_track_km": lambda where: mean(made(line_away[where[..., places].all(2)])),
    }


def error_measures(value_of: Scale, batch: Batch, rows: Batch, season: int | None = None) -> dict[str, Measure]:
    """Errors of what `value_of` makes of scaled values: of a model, and of forecasts that need no training."""
    shown, observed = visible(batch), value_of(batch[VALUES])
    own, one_step, last = (
        value_of(scaled) - observed for scaled in (rows["scaled"], rows["one_step"], persistence(shown))
    )
    found: dict[str, Measure] = {
        "rmse": lambda where: rms(own[where]),
        "mae": lambda where: mean(own[where].abs()),
        "one_step_rmse": lambda where: rms(one_step[:, 1:][where[:, 1:]]),
        "persistence_rmse": lambda where: rms(made(last[where])),
        "persistence_mae": lambda where: mean(made(last[where]).abs()),
    }
    if season:
        repeated = value_of(same_as_last_season(shown, season)) - observed
        found["season_rmse"] = lambda where: rms(made(repeated[where]))
    return found


def at_the_last_target(batch: Batch) -> Tensor:
    """Of each sample and channel the last value that an error counts at, `(n, T, C)`."""
    target = batch[TARGET]
    return target & (target.flip(1).cumsum(1).flip(1) == 1)


def only(measure: Measure, channel: int) -> Measure:
    """The measure of one channel alone."""
    return lambda where: measure(where & (torch.arange(where.shape[2], device=where.device) == channel))


def are_scaled(channel_names: Sequence[str], channel_units: Sequence[str]) -> bool:
    """Whether errors over all channels are of scaled values: they have no unit in common."""
    return len(channel_names) > 1 and len(set(channel_units)) != 1


def named_by_scale(name: str, *, is_scaled: bool) -> str:
    """`persistence_scaled_rmse` in the place of `persistence_rmse`, where errors are of scaled values."""
    return re.sub(r"[a-z]+$", lambda kind: f"scaled_{kind[0]}", name) if is_scaled else name


def rms(errors: Tensor) -> float:
    """The root of the mean square."""
    return math.sqrt(mean(errors.double().square()))


def mean(values: Tensor) -> float:
    """NaN if there are none, or if one of them is."""
    return float(values.double().mean().item())


def made(errors: Tensor) -> Tensor:
    """Those of a forecast that takes no training, where it could be made at all: something had been seen."""
    return errors[~errors.isnan()]


def by_horizon(batch: Batch, times: Tensor, measures: Mapping[str, Measure]) -> dict[str, Any]:
    """Each measure, of what was not shown, by how far ahead a forecast looks, as `Task.details` has it.

    `times` `(n, T)` are those of the user: `time` is the mean distance from the last time seen.
    """
    ahead, target = steps_ahead(batch), batch[TARGET] & ~batch[MASK]
    start = times.gather(1, (torch.arange(times.shape[1], device=times.device) - ahead).clamp(min=0))
    steps = sorted(set(ahead[target.any(2)].tolist()))
    places = [(ahead == step)[..., None] & target for step in steps]
    return {
        "steps": steps,
        "time": [(times - start)[where.any(2)].mean().item() for where in places],
        "metrics": {name: [measure(where) for where in places] for name, measure in measures.items()},
    }


def _last_seen(mask: Tensor, count: int) -> Tensor:
    """Where the last, or second last, observation before each time was, `(n, T, C)`; -1: nowhere."""
    places = torch.arange(mask.shape[1], device=mask.device)[:, None]
    none = torch.full_like(mask[:, :1], 0, dtype=torch.int64) - 1
    last = torch.cat([none, torch.where(mask, places, -1).cummax(1).values[:, :-1]], dim=1)
    if count == 1:
        return last
    return torch.where(last >= 0, last.gather(1, last.clamp(min=0)), -1)


def _look_up(values: Tensor, index: Tensor) -> Tensor:
    found = values.gather(1, index.clamp(min=0))
    return torch.where(index >= 0, found, torch.nan)
