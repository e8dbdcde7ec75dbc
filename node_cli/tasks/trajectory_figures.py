"""Figures of trajectories: what was observed and what is predicted, the vector field, errors, energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from node_cli.batch import Batch, num_samples, take
from node_cli.figures import common_legend, label_panel, panels
from node_cli.series import CONTROLS, MASK, SERIES, STATICS, TARGET, TIMES, VALUES, SeriesModel
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
    axis: Axis, model: SeriesModel | None, shown: Batch, batch: Batch, rows: Batch
) -> Mapping[str, Figure]:
    """All that can be drawn of a split: `shown` is what the model sees of the `batch`; None: there is no model."""
    prediction = rows["prediction"]
    curves = _curves(axis, model, shown, batch, prediction)
    last = axis.units.values(persistence(shown))
    figures = {"series": series_figure(axis, batch, curves, last)}
    if model is None:
        return figures
    errors, names = error_measures(axis.units.values, batch, rows), axis.channel_names[:NUM_CHANNELS]
    measures = {f"{name}/{kind}": only(errors[kind], i) for i, name in enumerate(names) for kind in KINDS}
    horizon = by_horizon(batch, axis.units.times(batch[TIMES]), measures)
    if len(horizon["steps"]) > 1:
        figures["error_by_horizon"] = horizon_figure(axis, names, horizon)
    if len(axis.channel_names) == 2 and not (CONTROLS in batch or STATICS in batch):
        portrait = phase_portrait(axis, model, batch, curves)
        figures |= {} if portrait is None else {"phase_portrait": portrait}
    energy = model.energy({**shown, VALUES: rows["scaled"]})
    if energy is not None:
        figures["energy"] = energy_figure(axis, batch, energy)
    return figures


class Curves(NamedTuple):
    """The first few series as a model has them, in the user's units: times `(n, points)`, values `(n, points, C)`."""

    times: np.ndarray
    values: np.ndarray


def series_figure(axis: Axis, batch: Batch, curves: Curves, last: Tensor) -> Figure:
    """The first few series: dots where something was observed, the line of the model.

    Of a single series the forecast is shaded, and persistence, of the `last` values seen `(n, T, C)`, drawn beside it.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator

    names = axis.channel_names[:NUM_CHANNELS]
    figure, all_axes = panels(len(names), columns=1 if len(names) < 4 else 2, size=(8, 2.9))
    times = axis.times(batch)
    observed = axis.units.values(batch[VALUES]).numpy(force=True)
    mask, target = (batch[name].numpy(force=True) for name in (MASK, TARGET))
    for channel, (name, axes) in enumerate(zip(names, all_axes, strict=True)):
        for number, (line_times, line) in enumerate(zip(*curves, strict=True)):
            seen, held_out = mask[number, :, channel], target[number, :, channel] & ~mask[number, :, channel]
            axes.plot(line_times, line[:, channel], color=f"C{number}", lw=1.6, label="model" * (number == 0), zorder=3)
            points = np.stack([times[number], observed[number, :, channel]])
            _plot_observed(axes, points, seen, held_out, number)
        if len(curves.times) == 1:
            _mark_forecast(axes, times[0], mask[0], last[0, -1, channel].item())
        if axis.calendar:
            locator = AutoDateLocator()
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        elif (times == times.round()).all():
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_panel(axes, "", axis.time_label, name, legend=False)
    common_legend(figure, all_axes, _left_out(num_samples(batch), len(axis.channel_names)))
    return figure


def _left_out(num_series: int, num_channels: int) -> str:
    """What a figure of the first series and channels does not show, in words; empty: it shows all."""
    counts = (("series", NUM_SERIES, num_series), ("channels", NUM_CHANNELS, num_channels))
    return ", ".join(f"the first {shown} of {total:,} {name}" for name, shown, total in counts if shown < total)


def _curves(axis: Axis, model: SeriesModel | None, shown: Batch, batch: Batch, prediction: Tensor) -> Curves:
    first = slice(NUM_SERIES)
    dense = _refined(take(shown, first)) if model is not None and model.is_continuous else None
    if dense is None or model is None:
        return Curves(axis.times(take(batch, first)), prediction[first].numpy(force=True))
    values = axis.units.values(model(dense)).numpy(force=True)
    if model.returns_seen:
        last = dense[TIMES].masked_fill(~dense[MASK].any(2), -torch.inf).max(1, keepdim=True).values
        values[(dense[TIMES] < last).numpy(force=True)] = np.nan
    return Curves(axis.times(dense), values)


def horizon_figure(axis: Axis, names: Sequence[str], horizon: Mapping[str, Any]) -> Figure:
    """The root mean square error of each channel by how far ahead a forecast looks."""
    from matplotlib.ticker import MaxNLocator

    ahead, steps = horizon["time"], horizon["steps"]
    is_uneven = bool((np.diff(ahead) <= 0).any())  # some step, of series that are dense, leads less far than one before
    figure, all_axes = panels(len(names), columns=2, size=(4.6, 3.2))
    for name, axes in zip(names, all_axes, strict=True):
        for kind, label in KINDS.items():
            errors = horizon["metrics"][f"{name}/{kind}"]
            axes.plot(
                steps if is_uneven else ahead, errors, "o-" if len(steps) <= MANY_STEPS else "-", ms=3, label=label
            )
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=is_uneven or all(time == round(time) for time in ahead)))
        unit = f" ({'day' if axis.calendar else axis.time_unit})" if axis.calendar or axis.time_unit else ""
        label_panel(axes, name, "times ahead" if is_uneven else f"time ahead{unit}", "RMS error")
    return figure


def phase_portrait(axis: Axis, model: SeriesModel, batch: Batch, curves: Curves) -> Figure | None:
    """The plane of two channels: the learned vector field as streamlines, data and predictions; None: no field."""
    observed = axis.units.values(batch[VALUES]).numpy(force=True)
    seen = batch[MASK].all(2).numpy(force=True)
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
            SERIES: batch[SERIES][:1],
        }
    )
    if field is None:
        return None
    slopes = field * field.new_tensor(axis.units.std) * (grid if axis.units.is_log else 1.0)
    u, v = slopes.numpy(force=True).reshape(GRID, GRID, 2).transpose(2, 0, 1)
    figure, (axes,) = panels(1, size=(6, 5))
    axes.streamplot(x, y, u, v, color="0.75", linewidth=0.8, density=1.2)
    for number, line in enumerate(curves.values):
        axes.plot(*line.T, color=f"C{number}", lw=1.6, label="model" * (number == 0))
        _plot_observed(axes, observed[number].T, seen[number], there[number] & ~seen[number], number)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    label_panel(axes, "", *axis.channel_names, legend=False)
    common_legend(figure, [axes])
    return figure


def energy_figure(axis: Axis, batch: Batch, energy: Tensor) -> Figure:
    """What the model conserves, along its own predictions."""
    figure, (axes,) = panels(1, size=(8, 3))
    times, values = axis.times(batch), energy.numpy(force=True)
    for number in range(min(NUM_SERIES, num_samples(batch))):
        axes.plot(times[number], values[number], color=f"C{number}")
    label_panel(axes, "energy along predictions", axis.time_label, "learned energy")
    return figure


def _plot_observed(axes: Axes, points: np.ndarray, seen: np.ndarray, held_out: np.ndarray, number: int) -> None:
    """Dots of the series of this number at some of the `points (2, T)`: full ones where the model saw them."""
    colour, label = f"C{number}", number == 0
    look = {"alpha": 0.25, "ms": 2} if len(seen) > MANY_TIMES else {"ms": 4}
    axes.plot(*points[:, seen], "o", color=colour, label="observed" * label, **look)
    if held_out.any():
        held = "observed, not shown to it" * label
        axes.plot(*points[:, held_out], "o", mec=colour, mfc="white", label=held, **look)


def _mark_forecast(axes: Axes, times: np.ndarray, mask: np.ndarray, last: float) -> None:
    """Shades what lies behind the last observation that was shown, and draws a line at the `last` value."""
    seen = np.flatnonzero(mask.any(1))
    if len(seen) and times[-1] > times[seen[-1]]:
        axes.axvline(times[seen[-1]], color="0.5", lw=1, ls="--")
        axes.axvspan(times[seen[-1]], times[-1], color="0.93", zorder=0, label="forecast")
        axes.hlines(last, times[seen[-1]], times[-1], color="C1", lw=1.4, ls=":", label="persistence")


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
