"""What the forecasts of a trajectory are measured by: over a split, by channel and by horizon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.series import TARGET, TIMES, Units
from node_cli.tasks.forecast_metrics import (
    Measure,
    are_scaled,
    at_the_last_target,
    by_horizon,
    error_measures,
    named_by_scale,
    only,
    track_measures,
)

TINY = 1e-6  # of the std of a channel: predictions below it count as this in logarithms
TRACKS = ("track_km", "persistence_track_km", "velocity_track_km")
OF_CHANNELS = ("rmse", "mae", "persistence_rmse", "persistence_mae")


@dataclass(frozen=True)
class TrajectoryErrors:
    """Errors of forecasts, beside those of forecasts that need no training.

    Errors over all channels are in the user's units where the channels have one, or there is one channel. Otherwise
    they are of scaled values, in units of the std of each channel, and their names say so: `scaled_rmse`,
    `persistence_scaled_rmse`.
    """

    units: Units
    channel_names: tuple[str, ...]
    channel_units: tuple[str, ...]
    position_channels: tuple[int, ...]
    season: int | None
    has_logarithms: bool

    @property
    def is_scaled(self) -> bool:
        """Whether errors over all channels are of scaled values."""
        return are_scaled(self.channel_names, self.channel_units)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all metrics of a split."""
        errors = ("rmse", "mae", "one_step_rmse", "persistence_rmse", *(("season_rmse",) if self.season else ()))
        return (
            *map(self._named, errors),
            *(("log_rmse", "persistence_log_rmse") if self.has_logarithms else ()),
            *(TRACKS if self.position_channels else ()),
        )

    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """Over all targets of a split."""
        measures = self._over_channels(batch, rows)
        return {name: measures[name](batch[TARGET]) for name in self.names}

    def details(self, batch: Batch, rows: Batch) -> dict[str, Any]:
        """By how far ahead a forecast looks; of each channel over all targets, and at the last one of each sample."""
        joint, errors = self._over_channels(batch, rows), error_measures(self.units.values, batch, rows)
        alone = {
            name: {kind: only(errors[kind], channel) for kind in OF_CHANNELS}
            for channel, name in enumerate(self.channel_names)
        }
        ahead = (*map(self._named, ("rmse", "persistence_rmse", "season_rmse")), *TRACKS)
        measures = {name: joint[name] for name in self.names if name in ahead}
        for name, own in alone.items():
            measures |= {f"{name}/{kind}": own[kind] for kind in ("rmse", "persistence_rmse")}
        horizon = by_horizon(batch, self.units.times(batch[TIMES]), measures)
        found: dict[str, Any] = {"by_horizon": horizon} if horizon["steps"] else {}
        for key, where in (("by_channel", batch[TARGET]), ("at_the_last_time", at_the_last_target(batch))):
            found[key] = {name: {kind: own[kind](where) for kind in own} for name, own in alone.items()}
            if self.position_channels:
                found[key]["track"] = {name: joint[name](where) for name in TRACKS}
        return found

    def in_words(self, details: Mapping[str, Any]) -> dict[str, str]:
        """The error of each channel in its own unit, where that over all channels is of scaled values."""
        if not self.is_scaled or "by_channel" not in details:
            return {}
        words = {}
        for channel, name in enumerate(self.channel_names):
            error, unit = details["by_channel"][name], self.channel_units[channel] if self.channel_units else ""
            own, last = (f"{error[kind]:.4g} {unit}".rstrip() for kind in ("rmse", "persistence_rmse"))
            words[f"test rmse of {name}"] = f"{own} (persistence {last})"
        return words

    def _named(self, name: str) -> str:
        return named_by_scale(name, is_scaled=self.is_scaled)

    def _over_channels(self, batch: Batch, rows: Batch) -> dict[str, Measure]:
        value_of = (lambda scaled: scaled) if self.is_scaled else self.units.values
        errors = error_measures(value_of, batch, rows, self.season)
        found = {self._named(name): measure for name, measure in errors.items()}
        if self.has_logarithms:
            logarithms = error_measures(lambda scaled: logarithm(self.units, self.units.values(scaled)), batch, rows)
            found |= {"log_rmse": logarithms["rmse"], "persistence_log_rmse": logarithms["persistence_rmse"]}
        if self.position_channels:
            found |= track_measures(self.units, self.position_channels, batch, rows["prediction"])
        return found


def logarithm(units: Units, values: Tensor) -> Tensor:
    """Also of predictions that are not positive, as they may be where no logarithms are learned."""
    if units.is_log:
        return values.clamp(min=torch.finfo(values.dtype).tiny).log()
    return values.maximum(TINY * values.new_tensor(units.std)).log()
