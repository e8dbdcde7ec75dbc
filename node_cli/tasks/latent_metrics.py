"""What a predictive distribution of series is measured by: errors within and beyond what was seen, and its bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.series import MASK, TARGET, TIMES, TRUTH, VALUES, Units, visible
from node_cli.tasks.forecast_metrics import Measure, by_horizon, made, mean, named_by_scale, only, persistence, rms

BAND = 0.9  # of the probability lies in a band, half of the rest on each side of it
LEVELS = (*(step / 20 for step in range(1, 20)), 0.99)  # of a calibration curve
STRETCHES = ("interpolation", "extrapolation")


@dataclass(frozen=True)
class LatentErrors:
    """Errors of the mean of a predictive distribution, and how often its bands hold what was observed.

    `interpolation` is up to the last time at which anything was seen, `extrapolation` after it; errors count at all
    that was observed, shown or not. Those from the `truth` count at all times, where a dataset knows it. Over several
    channels they are in the user's units, or scaled, as in `TrajectoryErrors`.
    """

    units: Units
    channel_names: tuple[str, ...]
    is_scaled: bool
    has_truth: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Of all metrics of a split."""
        kinds = ("rmse", "true_rmse") if self.has_truth else ("rmse",)
        errors = [f"{stretch}_{kind}" for kind in kinds for stretch in STRETCHES]
        return (*(named_by_scale(name, is_scaled=self.is_scaled) for name in (*errors, "persistence_rmse")), "coverage")

    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """Over a split; NaN where nothing is to be measured."""
        places = places_of(batch)
        errors = [rms(self._errors(batch[VALUES], rows["scaled"])[places[stretch]]) for stretch in STRETCHES]
        if self.has_truth:
            real = _real_times(batch)
            off = self._errors(batch[TRUTH], rows["scaled"])
            is_late = _is_late(batch)
            errors += [rms(off[real & is_late if late else real & ~is_late]) for late in (False, True)]
        last = self._errors(batch[VALUES], persistence(visible(batch)))[places["extrapolation"]]
        errors.append(rms(made(last)))
        held = coverage(rows["probability"][batch[TARGET]], [BAND])[0]
        return dict(zip(self.names, [*errors, held], strict=True))

    def details(self, batch: Batch, rows: Batch) -> dict[str, Any]:
        """By channel and by how far ahead a forecast looks, and the calibration curves."""
        places, value_of, measures = places_of(batch), self.units.values, dict[str, Measure]()
        for kind, scaled in (("rmse", rows["scaled"]), ("persistence_rmse", persistence(visible(batch)))):
            errors = value_of(scaled) - value_of(batch[VALUES])
            of_all = partial(_rms_at, errors)
            measures |= {f"{name}/{kind}": only(of_all, i) for i, name in enumerate(self.channel_names)}
        found: dict[str, Any] = {
            "by_channel": {
                name: {f"{stretch}_rmse": measures[f"{name}/rmse"](where) for stretch, where in places.items()}
                for name in self.channel_names
            },
            "calibration": {
                "levels": list(LEVELS),
                **{stretch: coverage(rows["probability"][where], LEVELS) for stretch, where in places.items()},
            },
        }
        horizon = by_horizon(batch, self.units.times(batch[TIMES]), measures)
        return found | ({"by_horizon": horizon} if horizon["steps"] else {})

    def _errors(self, values: Tensor, scaled: Tensor) -> Tensor:
        if self.is_scaled:
            return scaled - values
        return self.units.values(scaled) - self.units.values(values)


def places_of(batch: Batch) -> dict[str, Tensor]:
    """Where something was observed `(n, T, C)`, up to the last time seen, and after it."""
    observed, is_late = batch[MASK] | batch[TARGET], _is_late(batch)
    return {"interpolation": observed & ~is_late, "extrapolation": observed & is_late}


def coverage(probability: Tensor, levels: Sequence[float]) -> list[float]:
    """The fraction of observations, each at its cumulative `probability`, within the central bands of these levels."""
    away = 2 * (probability.double() - 0.5).abs()
    return [mean((away <= level).double()) for level in levels]


def log_jacobian(units: Units, values: Tensor, where: Tensor) -> Tensor:
    """What the log-density of scaled values `(n, T, C)` at `where` exceeds that in the user's units by, summed."""
    steps = values.new_tensor(units.std).log().expand_as(values)
    if units.is_log:
        steps = steps + units.values(values).log()
    return torch.where(where, steps, 0.0).sum()


def _rms_at(errors: Tensor, where: Tensor) -> float:
    return rms(made(errors[where]))


def _is_late(batch: Batch) -> Tensor:
    """Times after the last one at which anything was seen `(n, T, 1)`."""
    seen = batch[MASK].any(2)
    return (seen.flip(1).cumsum(1).flip(1) == 0)[..., None]


def _real_times(batch: Batch) -> Tensor:
    """Times that are not padding `(n, T, C)`."""
    is_new = torch.ones_like(batch[TIMES], dtype=torch.bool)
    is_new[:, 1:] = batch[TIMES].diff(dim=1) > 0
    return is_new[..., None].expand_as(batch[MASK])
