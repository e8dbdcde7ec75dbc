"""Forecasts beyond the data, and series as a table, with the names and units that figures share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from node_cli.batch import Batch
from node_cli.dates import DAYS, DAYS_UTC, NONE, dates_of, days_of
from node_cli.series import CONTROLS, DROPPED, MASK, TARGET, TIMES, TRUTH, VALUES, Units, all_observed
from node_cli.tasks.task import FAILED

MOST_TIMES = 100_000  # that a forecast may go beyond the data
TIMES_OF = {
    NONE: "a number",
    DAYS: "a date such as 2026-01-31, without a time zone",
    DAYS_UTC: "a date with a time zone, such as 2026-01-31Z",
}
MOST_DIGITS = 15  # that a float64 holds, whatever they are
RESOLUTION = 2 * torch.finfo(torch.float32).eps  # of scaled values
ROUNDING = 1e-9


@dataclass(frozen=True)
class Axis:
    """What the figures of a dataset share: names and units, and where training ends (see `Trajectory`)."""

    units: Units
    channel_names: tuple[str, ...]
    time_name: str
    time_unit: str
    calendar: str
    channel_units: tuple[str, ...] = ()
    train_ends: tuple[float, ...] = ()

    @property
    def channel_labels(self) -> tuple[str, ...]:
        """`hare (thousands)`, or `hare` where the unit is not known."""
        units = self.channel_units or ("",) * len(self.channel_names)
        return tuple(f"{name} ({unit})" if unit else name for name, unit in zip(self.channel_names, units, strict=True))

    @property
    def time_label(self) -> str:
        """`day`, or `t (day)`, or `when (UTC)`."""
        if self.calendar == DAYS_UTC:
            return f"{self.time_name} (UTC)"
        named = self.time_unit and self.time_unit != self.time_name and not self.calendar
        return f"{self.time_name} ({self.time_unit})" if named else self.time_name

    def printed(self, times: np.ndarray) -> np.ndarray:
        """The user's times `(count,)` as a table has them: ISO dates where there is a calendar."""
        if not self.calendar:
            return np.array([f"{time:.0f}" if time == round(time) else f"{time:.{MOST_DIGITS}g}" for time in times])
        return dates_of(times, self.calendar)

    def parsed(self, time: float | str) -> float:
        """A time of the user as a number.

        Raises:
            ValueError: it is neither a number nor, with a calendar, a date.
        """
        try:
            if self.calendar:
                days, calendar = days_of(str(time))
                if calendar != self.calendar:
                    raise ValueError("of another kind")
                return days
            number = float(time)
        except ValueError as error:
            raise ValueError(f"until={time} must be {TIMES_OF[self.calendar]}, as the times of the data are") from error
        if not math.isfinite(number):
            raise ValueError(f"until={time} must be finite")
        return number

    def times(self, batch: Batch) -> np.ndarray:
        """The user's, `(n, T)`."""
        times: np.ndarray = self.units.times(batch[TIMES]).numpy(force=True)
        return times


def forecast_table(axis: Axis, batch: Batch, rows: Batch, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Columns with a row for each series and time, without padding: predicted, observed, whether the model saw that.

    Of a predictive distribution there are the ends of its band too.
    """
    times, num_times = batch[TIMES], batch[TIMES].shape[1]
    real = torch.ones_like(times, dtype=torch.bool)
    real[:, 1:] = times.diff(dim=1) > 0
    observed = _as_written(axis.units, batch[VALUES])
    there = batch[MASK] | batch[TARGET]
    number = torch.arange(len(times), device=times.device)[:, None].expand(-1, num_times)
    columns: dict[str, np.ndarray] = {}
    if any(names):
        columns["series"] = np.array(names)[number[real].numpy(force=True)]
    columns[axis.time_name] = axis.printed(axis.units.times(times)[real].numpy(force=True))
    for channel, name in enumerate(axis.channel_names):
        columns[name] = rows["prediction"][..., channel][real].numpy(force=True)
        for end in ("low", "high"):
            if end in rows:
                columns[f"{name}_{end}"] = rows[end][..., channel][real].numpy(force=True)
        value = torch.where(there[..., channel], observed[..., channel], torch.nan)
        columns[f"{name}_observed"] = value[real].numpy(force=True)
    columns["is_shown"] = batch[MASK].any(2)[real].numpy(force=True)
    if FAILED in rows:
        columns[FAILED] = rows[FAILED][:, None].expand(-1, num_times)[real].numpy(force=True)
    return columns


def _as_written(units: Units, scaled: Tensor) -> Tensor:
    """The user's values `(..., C)` in float64, with the fewest digits that are the same in float32."""
    exact = units.values(scaled.double())
    size = exact.abs().log10().floor().nan_to_num()
    found = exact
    for digits in range(MOST_DIGITS, -1, -1):
        up, down = 10 ** (digits - 1 - size).clamp(min=0), 10 ** (size - digits + 1).clamp(min=0)
        rounded = (exact * up / down).round() * down / up if digits else torch.zeros_like(exact)
        again = units.scaled(rounded)
        is_close = (again - scaled).abs() <= RESOLUTION * scaled.abs().clamp(min=1)
        is_same = (again.to(scaled) == scaled) | (is_close & (rounded.float() == exact.float()))
        found = torch.where(is_same, rounded, found)
    return found


def extended(axis: Axis, batch: Batch, until: float | str) -> Batch:
    """The batch, all shown but what was dropped, and times up to `until`, as far apart as the others mostly are.

    Raises:
        ValueError: there are controls, or `until` is not after the data, or too far from them.
    """
    end = axis.parsed(until)
    times = batch[TIMES]
    if CONTROLS in batch:
        raise ValueError(
            f"until={until}: the controls after the data are not known: give a file with them (dataset.path=...)"
        )
    last = times[:, -1:]
    scaled_end = float(axis.units.scaled_times(torch.tensor(end, dtype=torch.float64)))
    if scaled_end <= float(last.min()):
        latest = axis.printed(axis.units.times(last.min().reshape(1)).numpy(force=True))[0]
        raise ValueError(f"until={until} must be after the data, which end at {latest}")
    steps = times.diff(dim=1)
    spacing = float(steps[steps > 0].median())
    count = math.ceil((scaled_end - float(last.min())) / spacing - ROUNDING)
    if count > MOST_TIMES:
        raise ValueError(
            f"until={until} is {count:,} times of the data's spacing away, more than {MOST_TIMES:,}: set it nearer"
        )
    new = torch.minimum(last + spacing * torch.arange(1, count + 1).to(times), last.clamp(min=scaled_end))
    shape = (len(times), count, batch[VALUES].shape[2])
    seen = all_observed(batch)
    nothing = seen.new_zeros(shape)
    return {
        **{name: tensor for name, tensor in batch.items() if name not in (TRUTH, DROPPED)},
        TIMES: torch.cat([times, new], dim=1),
        VALUES: torch.cat([batch[VALUES], batch[VALUES].new_zeros(shape)], dim=1),
        MASK: torch.cat([seen, nothing], dim=1),
        TARGET: torch.cat([(batch[MASK] | batch[TARGET]) & ~seen, nothing], dim=1),
    }
