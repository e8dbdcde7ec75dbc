"""Figures of trajectories: what was observed and what is predicted, the vector field, errors, energies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from node_cli.batch import Batch, num_samples, take
from node_cli.figures import common_legend, label_panel, panels
from node_cli.series import CONTROLS, MASK, START, STATICS, TARGET, TIMES, VALUES, SeriesModel, visible
from node_cli.tasks.forecast_metrics import by_horizon, error_measures, only, persistence
from node_cli.tasks.forecasts import Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {"rmse": "model", "persistence_rmse": "persistence"}  # errors by horizon, and what a legend calls them
NUM_SERIES = 3
NUM_CHANNELS = 6
FINENESS = 16  # points of a curve between two times
GRID = 24  # places of a phase portrait, each way
MANY_TIMES = 300  # more than these would hide the curves
MANY_STEPS = 60  # markers of more would be a band
MARGIN = 0.15  # of the range of the data, around them


def trajectory_figures(
    axis: Axis, model: SeriesModel | None, batch: Batch, rows: Batch, names: Sequence[str] = ()
) -> Mapping[str, Figure]:
    """All that can be drawn of a split whose samples are called `names`, if anything; None: there is no model."""
    places = different(names, num_samples(batch))
    few, few_rows = take(batch, places), take(rows, places)
    curves = _curves(axis, model, visible(few), few_rows["prediction"])
    titles = [names[place] if names else "" for place in places.tolist()]
    figures = {"series": series_figure(axis, few, curves, titles, num_samples(batch))}
    if model is None:
        return figures
    errors, channels = error_measures(axis.units.values, batch, rows), axis.channel_names[:NUM_CHANNELS]
    measures = {f"{name}/{kind}": only(errors[kind], i) for i, name in enumerate(channels) for kind in KINDS}
    horizon = by_horizon(batch, axis.units.times(batch[TIMES]), measures)
    if len(horizon["steps"]) > 1:
        figures["error_by_horizon"] = horizon_figure(axis, horizon)
    if len(axis.channel_names) == 2 and not (CONTROLS in batch or STATICS in batch):
        portrait = phase_portrait(axis, model, batch, few, curves)
        figures |= {} if portrait is None else {"phase_portrait": portrait}
    energy = model.energy({**visible(few), VALUES: few_rows["scaled"]})
    if energy is not None:
        figures["energy"] = energy_figure(axis, few, energy)
    return figures


def different(names: Sequence[str], count: int) -> Tensor:
    """The places of the samples that are drawn: of the first series, or far from each other where they are too few.

    The windows of a series are called `name/1`, `name/2`, ..., and those of a single one `1`, `2`, ....
    """
    firsts: dict[str, int] = {}
    for place, name in enumerate(names):
        firsts.setdefault(re.sub(r"(^|/)\d+$", "", name), place)
    if len(firsts) < NUM_SERIES:
        return torch.linspace(0, count - 1, min(NUM_SERIES, count)).round().long()
    return torch.tensor(list(firsts.values())[:NUM_SERIES])


class Curves(NamedTuple):
    """A few series as a model has them, in the user's units: times `(n, points)`, values `(n, points, C)`.

    Perhaps also the ends of a band around the values.
    """

    times: np.ndarray
    values: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None = None


def series_figure(axis: Axis, few: Batch, curves: Curves, titles: Sequence[str], num_series: int) -> Figure:
    """A few of all series beside each other: dots where something was observed, the line of the model.

    The forecast is shaded, and persistence drawn beside it.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator

    labels, count = axis.channel_labels[:NUM_CHANNELS], len(titles)
    columns = count if count > 1 else 1 if len(labels) < 4 else 2
    figure, all_axes = panels(count * len(labels), columns=columns, size=(4.6, 2.7) if count > 1 else (8, 2.9))
    times = axis.times(few)
    observed, last = (axis.units.values(each).numpy(force=True) for each in (few[VALUES], persistence(visible(few))))
    mask, target = (few[name].numpy(force=True) for name in (MASK, TARGET))
    for place, axes in enumerate(all_axes):
        channel, number = divmod(place, count)
        seen, held_out = mask[number, :, channel], target[number, :, channel] & ~mask[number, :, channel]
        axes.plot(curves.times[number], curves.values[number, :, channel], color="C0", lw=1.6, label="model", zorder=3)
        if curves.band is not None:
            low, high = (end[number, :, channel] for end in curves.band)
            axes.fill_between(curves.times[number], low, high, color="C0", alpha=0.2, lw=0, label="90 % band")
        _plot_observed(axes, np.stack([times[number], observed[number, :, channel]]), seen, held_out, "C0")
        _mark_forecast(axes, times[number], mask[number], last[number, -1, channel], _train_end(axis, few, number))
        if axis.calendar:
            locator = AutoDateLocator()
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        elif (times == times.round()).all():
            axes.xaxis.set_major_locator(MaxNLocator(nbins="auto" if count == 1 else 5, integer=True))
        title = titles[number] if count > 1 and channel == 0 else ""
        label_panel(axes, title, axis.time_label, labels[channel], legend=False)
    common_legend(figure, all_axes, _left_out(num_series, len(axis.channel_names)))
    return figure


def _train_end(axis: Axis, few: Batch, number: int) -> float | None:
    start = int(few[START][number])
    return axis.train_ends[start] if 0 <= start < len(axis.train_ends) else None


def _left_out(num_series: int, num_channels: int) -> str:
    """What a figure of a few series and channels does not show, in words; empty: it shows all."""
    counts = (("", "series", NUM_SERIES, num_series), ("the first ", "channels", NUM_CHANNELS, num_channels))
    return ", ".join(f"{first}{shown} of {total:,} {name}" for first, name, shown, total in counts if shown < total)


def _curves(axis: Axis, model: SeriesModel | None, shown: Batch, prediction: Tensor) -> Curves:
    dense = _refined(shown) if model is not None and model.is_continuous else None
    if dense is None or model is None:
        return Curves(axis.times(shown), prediction.numpy(force=True))
    values = axis.units.values(model(dense)).numpy(force=True)
    if model.returns_seen:
        last = dense[TIMES].masked_fill(~dense[MASK].any(2), -torch.inf).max(1, keepdim=True).values
        values[(dense[TIMES] < last).numpy(force=True)] = np.nan
    return Curves(axis.times(dense), values)


def horizon_figure(axis: Axis, horizon: Mapping[str, Any]) -> Figure:
    """The root mean square error of each channel by how far ahead a forecast looks."""
    from matplotlib.ticker import MaxNLocator

    ahead, steps = horizon["time"], horizon["steps"]
    is_uneven = bool((np.diff(ahead) <= 0).any())  # some step, of series that are dense, leads less far than one before
    names, units = axis.channel_names[:NUM_CHANNELS], axis.channel_units or ("",) * NUM_CHANNELS
    figure, all_axes = panels(len(names), columns=2, size=(4.6, 3.2))
    for name, of_error, axes in zip(names, units, all_axes, strict=False):
        for kind, label in KINDS.items():
            errors = horizon["metrics"][f"{name}/{kind}"]
            axes.plot(
                steps if is_uneven else ahead, errors, "o-" if len(steps) <= MANY_STEPS else "-", ms=3, label=label
            )
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=is_uneven or all(time == round(time) for time in ahead)))
        unit = f" ({'day' if axis.calendar else axis.time_unit})" if axis.calendar or axis.time_unit else ""
        error_label = f"RMS error ({of_error})" if of_error else "RMS error"
        label_panel(axes, name, "times ahead" if is_uneven else f"time ahead{unit}", error_label)
    return figure


def phase_portrait(axis: Axis, model: SeriesModel, batch: Batch, few: Batch, curves: Curves) -> Figure | None:
    """The plane of two channels: the learned field as streamlines, a few series and predictions; None: no field."""
    observed = axis.units.values(batch[VALUES]).numpy(force=True)
    there = (batch[MASK] | batch[TARGET]).all(2).numpy(force=True)
    places = observed[there] if there.any() else observed.reshape(-1, 2)
    low, high = places.min(0).astype(float), places.max(0).astype(float)
    margin = MARGIN * np.maximum(high - low, np.maximum(np.abs(high), 1e-6) / 10)  # of one value too
    smallest = low / 2 if axis.units.is_log else low - margin
    x, y = (np.linspace(max(low[i] - margin[i], smallest[i]), high[i] + margin[i], GRID) for i in range(2))
    grid = torch.tensor(np.stack(np.meshgrid(x, y), axis=-1).reshape(1, -1, 2)).to(batch[VALUES])
    field = model.slopes(
        {
            TIMES: batch[TIMES][:1, :1].expand(1, grid.shape[1]),
            VALUES: axis.units.scaled(grid),
            MASK: torch.ones_like(grid, dtype=torch.bool),
            START: batch[START][:1],
        }
    )
    if field is None:
        return None
    slopes = field * field.new_tensor(axis.units.std) * (grid if axis.units.is_log else 1.0)
    u, v = slopes.numpy(force=True).reshape(GRID, GRID, 2).transpose(2, 0, 1)
    figure, (axes,) = panels(1, size=(6, 5))
    axes.streamplot(x, y, u, v, color="0.75", linewidth=0.8, density=1.2)
    observed = axis.units.values(few[VALUES]).numpy(force=True)
    seen, held_out = (few[name].all(2).numpy(force=True) for name in (MASK, TARGET))
    for number, line in enumerate(curves.values):
        axes.plot(*line.T, color=f"C{number}", lw=1.6, label="model" * (number == 0))
        _plot_observed(
            axes, observed[number].T, seen[number], held_out[number] & ~seen[number], f"C{number}", labelled=number == 0
        )
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    label_panel(axes, "", *axis.channel_labels, legend=False)
    common_legend(figure, [axes])
    return figure


def energy_figure(axis: Axis, few: Batch, energy: Tensor) -> Figure:
    """What the model conserves, along its own predictions."""
    figure, (axes,) = panels(1, size=(8, 3))
    times, values = axis.times(few), energy.numpy(force=True)
    for number in range(num_samples(few)):
        axes.plot(times[number], values[number], color=f"C{number}")
    label_panel(axes, "energy along predictions", axis.time_label, "learned energy")
    return figure


def _plot_observed(
    axes: Axes, points: np.ndarray, seen: np.ndarray, held_out: np.ndarray, colour: str, *, labelled: bool = True
) -> None:
    """Dots at some of the `points (2, T)` of a series: full ones where the model saw them."""
    look = {"alpha": 0.25, "ms": 2} if len(seen) > MANY_TIMES else {"ms": 4}
    axes.plot(*points[:, seen], "o", color=colour, label="observed" * labelled, **look)
    if held_out.any():
        held = "observed, not shown to it" * labelled
        axes.plot(*points[:, held_out], "o", mec=colour, mfc="white", label=held, **look)


def _mark_forecast(axes: Axes, times: np.ndarray, mask: np.ndarray, last: float, train_end: float | None) -> None:
    """Shades what lies behind the last observation that was shown, and draws a line at the `last` value.

    Where later observations than those of training were shown, a line tells them apart.
    """
    seen = np.flatnonzero(mask.any(1))
    if not len(seen):
        return
    shown_until = times[seen[-1]]
    if train_end is not None and times[0] <= train_end < shown_until:
        axes.axvline(train_end, color="0.5", lw=1, ls="-.", label="validation begins")
    if times[-1] > shown_until:
        axes.axvline(shown_until, color="0.5", lw=1, ls="--")
        axes.axvspan(shown_until, times[-1], color="0.93", zorder=0, label="forecast")
        axes.hlines(last, shown_until, times[-1], color="C1", lw=1.4, ls=":", label="persistence")


def _refined(shown: Batch) -> Batch | None:
    """With more times between those that there are; None where controls are not known between them."""
    if CONTROLS in shown:
        return None
    times = shown[TIMES]
    share = torch.linspace(0, 1, FINENESS + 1, dtype=times.dtype, device=times.device)[:-1]
    between = (times[:, :-1, None] + share * times.diff(dim=1)[..., None]).flatten(1)
    refined = torch.cat([between, times[:, -1:]], dim=1)
    values, mask = (
        tensor.new_zeros(len(tensor), refined.shape[1], tensor.shape[2]) for tensor in (shown[VALUES], shown[MASK])
    )
    values[:, ::FINENESS], mask[:, ::FINENESS] = shown[VALUES], shown[MASK]
    return {**shown, TIMES: refined, VALUES: values, MASK: mask}
