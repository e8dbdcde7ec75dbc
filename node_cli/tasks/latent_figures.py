"""Figures of latent models of series: bands, their calibration, latent trajectories, samples from the prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from node_cli.batch import Batch, num_samples, take
from node_cli.figures import label_panel, panels
from node_cli.latent import LatentModel, normal
from node_cli.series import MASK, TARGET, TARGETS, VALUES, SeriesModel, visible
from node_cli.tasks.forecasts import Axis
from node_cli.tasks.latent_metrics import LEVELS, coverage, places_of
from node_cli.tasks.trajectory_figures import NUM_CHANNELS, Curves, different, series_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_PATHS = 100  # latent trajectories that are drawn
NUM_PRIOR = 12  # samples from the prior
NUM_IN_PLANE = 6  # series in the plane of two channels


def latent_figures(
    axis: Axis,
    class_names: Sequence[str],
    model: LatentModel | SeriesModel | None,
    batch: Batch,
    rows: Batch,
    names: Sequence[str],
) -> Mapping[str, Figure]:
    """All that can be drawn of a split whose samples are called `names`, if anything; None: there is no model."""
    places = different(names, num_samples(batch))
    few, few_rows = take(batch, places), take(rows, places)
    prediction, *ends = (few_rows[name].numpy(force=True) for name in ("prediction", "low", "high"))
    titles = [names[place] if names else "" for place in places.tolist()]
    curves = Curves(axis.times(few), prediction, (ends[0], ends[1]))
    figures = {"series": series_figure(axis, few, curves, titles, num_samples(batch))}
    if len(axis.channel_names) == 2:
        figures["plane"] = plane_figure(axis, take(batch, slice(NUM_IN_PLANE)), take(rows, slice(NUM_IN_PLANE)))
    if bool(batch[TARGET].any()):
        figures["calibration"] = calibration_figure(batch, rows["probability"])
    if isinstance(model, LatentModel):
        shown = take(batch, slice(NUM_PATHS))
        figures["latent"] = latent_figure(axis, class_names, model, shown)
        figures["prior"] = prior_figure(axis, model, take(shown, slice(1)))
    return figures


def plane_figure(axis: Axis, batch: Batch, rows: Batch) -> Figure:
    """Series in the plane of their two channels: what was seen, what was not, the prediction within and beyond it."""
    count = num_samples(batch)
    figure, all_axes = panels(count, columns=3, size=(3.6, 3.2))
    observed, predicted = axis.units.values(batch[VALUES]).numpy(force=True), rows["prediction"].numpy(force=True)
    seen, target = (batch[name].all(2).numpy(force=True) for name in (MASK, TARGET))
    for number, axes in enumerate(all_axes):
        last = int(np.flatnonzero(seen[number]).max(initial=0))
        axes.plot(*observed[number, target[number]].T, ".", color="0.75", ms=3, label="observed, not shown to it")
        axes.plot(*observed[number, seen[number]].T, ".", color="C0", ms=4, label="observed")
        axes.plot(*predicted[number, : last + 1].T, color="C0", lw=1.6, label="model")
        axes.plot(*predicted[number, last:].T, color="C1", lw=1.6, label="forecast")
        label_panel(axes, "", *axis.channel_labels, legend=number == 0)
    return figure


def calibration_figure(batch: Batch, probability: Tensor) -> Figure:
    """How often bands of each level hold what was observed; a calibrated model lies on the diagonal."""
    figure, (axes,) = panels(1, size=(4.6, 4.2))
    axes.plot([0, 1], [0, 1], color="0.5", lw=1, ls="--")
    for stretch, where in places_of(batch).items():
        if bool(where.any()):
            axes.plot(LEVELS, coverage(probability[where], LEVELS), "o-", ms=3, label=stretch)
    label_panel(axes, "", "nominal level of a band", "fraction of observations in it")
    return figure


def latent_figure(axis: Axis, class_names: Sequence[str], model: LatentModel, batch: Batch) -> Figure:
    """Latent trajectories of posterior means, in the plane in which they spread most, coloured by class."""
    shown = visible(batch)
    paths = model.paths(model.posterior(shown).mean[None], shown)[0].double()
    flat = paths.flatten(0, 1)
    centred = paths - flat.mean(0)
    if paths.shape[2] > 1:
        directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:2]
        x, y = (centred @ directions.T).numpy(force=True).transpose(2, 0, 1)
    else:
        x, y = axis.times(batch), centred[..., 0].numpy(force=True)
    labels = batch[TARGETS].tolist() if class_names and TARGETS in batch else [0] * len(x)
    figure, (axes,) = panels(1, size=(5.4, 4.6))
    first = {label: labels.index(label) for label in set(labels)}
    for number, label in enumerate(labels):
        named = class_names[label] if class_names and first[label] == number else None
        axes.plot(x[number], y[number], color=f"C{label % 10}", lw=0.8, alpha=0.6, label=named)
        axes.plot(x[number, :1], y[number, :1], ".", color=f"C{label % 10}", ms=4)
    words = ("first principal component", "second") if paths.shape[2] > 1 else (axis.time_label, "latent state")
    label_panel(axes, "latent trajectories, from their dots", *words)
    return figure


def prior_figure(axis: Axis, model: LatentModel, one: Batch) -> Figure:
    """Series that follow from latent states drawn from the prior, at the times of `one` series."""
    generator = torch.Generator().manual_seed(0)
    latent = normal(one[VALUES], (NUM_PRIOR, 1, model.latent_dim), generator)
    values = axis.units.values(model.values(model.paths(latent, visible(one))))[:, 0].numpy(force=True)
    times, channels = axis.times(one)[0], range(min(NUM_CHANNELS, len(axis.channel_names)))
    if len(axis.channel_names) == 2:
        figure, (axes,) = panels(1, size=(5.4, 4.6))
        _plot_all(axes, [tuple(each.T) for each in values])
        label_panel(axes, "samples from the prior", *axis.channel_labels)
        return figure
    figure, all_axes = panels(len(channels), columns=2, size=(4.6, 2.8), title="samples from the prior")
    for channel, axes in zip(channels, all_axes, strict=True):
        _plot_all(axes, [(times, each[:, channel]) for each in values])
        label_panel(axes, "", axis.time_label, axis.channel_labels[channel])
    return figure


def _plot_all(axes: Axes, curves: Sequence[tuple[Any, ...]]) -> None:
    for number, curve in enumerate(curves):
        axes.plot(*curve, color=f"C{number % 10}", lw=1.1)
