"""Errors of forecasts, by how far ahead they look, beside forecasts that need no training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.series import MASK, TARGET, TIMES, VALUES, Units, visible

EARTH_RADIUS = 6371.0  # km


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


def track_errors(units: Units, places: Sequence[int], batch: Batch, predicted: Tensor) -> dict[str, float]:
    """Mean distances in km, at all targets, of predicted positions and of two forecasts that need no training."""
    shown, places = visible(batch), list(places)
    target = batch[TARGET][..., places].all(2)
    observed = units.values(batch[VALUES])[..., places][target]
    last, line = (units.values(forecast(shown)) for forecast in (persistence, constant_velocity))
    forecasts = {"track_km": predicted, "persistence_track_km": last, "velocity_track_km": line}
    distances = {name: great_circle(each[..., places][target], observed) for name, each in forecasts.items()}
    return {name: mean(each if name == "track_km" else made(each)) for name, each in distances.items()}


def error_details(
    units: Units, names: tuple[str, ...], places: Sequence[int], batch: Batch, rows: Batch
) -> dict[str, Any]:
    """Errors by channel, over all targets and at the last one of each sample; and by how far ahead they look."""
    observed, predicted = units.values(batch[VALUES]), rows["prediction"]
    errors = {"rmse": predicted - observed, "persistence_rmse": units.values(persistence(visible(batch))) - observed}
    count = batch[TARGET].flip(1).cumsum(1).flip(1)
    last = {**batch, TARGET: batch[TARGET] & (count == 1)}
    horizon = by_horizon(batch, errors, names, units.times(batch[TIMES]))
    found: dict[str, Any] = {"horizon": horizon} if horizon["ahead"]["steps"] else {}
    for key, part in (("by_channel", batch), ("at_the_last_time", last)):
        found[key] = {
            name: {
                "rmse": rms(errors["rmse"][..., i][part[TARGET][..., i]]),
                "mae": mean(errors["rmse"][..., i][part[TARGET][..., i]].abs()),
                "persistence_mae": mean(made(errors["persistence_rmse"][..., i][part[TARGET][..., i]]).abs()),
            }
            for i, name in enumerate(names)
        }
        if places:
            found[key]["track"] = track_errors(units, places, part, predicted)
    return found


def rms(errors: Tensor) -> float:
    """The root of the mean square."""
    return math.sqrt(mean(errors.double().square()))


def mean(values: Tensor) -> float:
    """NaN if there are none, or if one of them is."""
    return float(values.double().mean().item())


def made(errors: Tensor) -> Tensor:
    """Those of a forecast that takes no training, where it could be made at all: something had been seen."""
    return errors[~errors.isnan()]


def by_horizon(
    batch: Batch, errors: Mapping[str, Tensor], names: tuple[str, ...], times: Tensor
) -> dict[str, dict[str, list[Any]]]:
    """The root mean square of `errors` `(n, T, C)` of what was not shown, for each channel and number of steps ahead.

    `times` `(n, T)` are those of the user: of the steps ahead their mean distance from the last time seen is told.
    """
    ahead, target = steps_ahead(batch), batch[TARGET] & ~batch[MASK]
    start = times.gather(1, (torch.arange(times.shape[1], device=times.device) - ahead).clamp(min=0))
    horizon: dict[str, dict[str, list[Any]]] = {"ahead": {"steps": [], "time": []}}
    horizon |= {name: {kind: [] for kind in errors} for name in names}
    for step in sorted(set(ahead[target.any(2)].tolist())):
        here = (ahead == step)[..., None] & target
        places = here.any(2)
        horizon["ahead"]["steps"].append(step)
        horizon["ahead"]["time"].append((times - start)[places].mean().item())
        for channel, name in enumerate(names):
            for kind, error in errors.items():
                found = error[..., channel][here[..., channel]]
                found = made(found) if kind.startswith("persistence") else found
                horizon[name][kind].append(rms(found) if len(found) else None)
    return horizon


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
