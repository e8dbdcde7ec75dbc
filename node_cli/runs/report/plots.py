"""Figures over many runs: curves with bands over seeds, a metric against its cost, memory against steps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from node_cli.config import ConfigError
from node_cli.figures import label_panel, panels
from node_cli.runs.report.grouping import Group, Statistic, beside, statistic
from node_cli.runs.report.reading import RunRecord, curves
from node_cli.runs.report.styles import Style, Styles, is_wide, styles_of

STEPS, NFE, MEMORY, SECONDS = "solver/accepted", "nfe/forward", "memory.peak_mb", "seconds.training"
Cell = Statistic | str | None
PANEL = (5.4, 3.8)  # inches
FEW_POINTS = 30  # drawn as dots too
FEW_BANDS = 6  # more of them hide each other
CURVES = ("train/loss", "val/loss")
NAMES = {
    NFE: "NFE forward (evaluations per pass)",
    STEPS: "accepted steps per pass",
    MEMORY: "peak memory (MB)",
    SECONDS: "time of all updates (s)",
}


def draw(plot: str, groups: Sequence[Group], columns: Sequence[str]) -> Figure:
    """One of the figures `curves`, `nfe`, `seconds`, `memory` and `horizon`, of the first metric of `columns`.

    Raises:
        ConfigError: there is nothing to draw.
    """
    metrics = {tag for group in groups for run in group.runs for tag in run.summary["metrics"]}
    metric = next((column for column in columns if column in metrics), None)
    if metric is None:
        raise ConfigError(f"--plot {plot}: no run has metrics")
    if plot == "curves":
        return _draw_curves(groups, metric)
    if plot == "horizon":
        return _draw_horizons(groups, metric)
    x, y = {"nfe": (NFE, metric), "seconds": (SECONDS, metric), "memory": (STEPS, MEMORY)}[plot]
    xs: list[Cell] = [group.cell(x) for group in groups]
    if plot == "memory":  # steps stand in no summary
        steps = [[count for count in map(_last_steps, group.runs) if count is not None] for group in groups]
        xs = [statistic(counts) if counts else None for counts in steps]
        if not any(steps):
            x, xs = NFE, [group.cell(NFE) for group in groups]
    return _draw_points(groups, xs, x, y, plot)


def _draw_curves(groups: Sequence[Group], metric: str) -> Figure:
    """Losses, the metric on the validation split and NFE: a line is the mean of a group, its band the std."""
    lines = {run.folder: curves(run) for group in groups for run in group.runs}
    wanted = [*CURVES, f"val/{metric.rpartition('/')[2]}", NFE]
    known = {tag for run in lines.values() for line in run for tag in line}
    tags = [tag for tag in dict.fromkeys(wanted) if tag in known]
    if not tags:
        raise ConfigError(f"--plot curves: no run has {', '.join(wanted)} in its metrics.jsonl")
    figure, all_axes = panels(len(tags), columns=2, size=PANEL)
    styles = styles_of(groups)
    for axes, tag in zip(all_axes, tags, strict=True):
        of_groups = [_means(tag, [lines[run.folder] for run in group.runs]) for group in groups]
        drawn = [(means, style) for means, style in zip(of_groups, styles.of_groups, strict=True) if means]
        for means, style in drawn:
            _draw_line(axes, means, style, with_band=len(drawn) <= FEW_BANDS)
        _scale(axes.set_yscale, [mean.mean for means, _ in drawn for mean in means.values()])
        label_panel(axes, tag, "epoch" if tag.startswith("val/") else "step", NAMES.get(tag, tag))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    num_empty = sum(not run for run in lines.values())
    notes = [f"{num_empty} of {len(lines)} runs have no metrics.jsonl"] if num_empty else []
    if any(len(group.runs) > 1 for group in groups):
        notes.append("line: mean of the runs" + ("; band: std" if len(groups) <= FEW_BANDS else ""))
    _finish(figure, all_axes, styles, notes, lines=True)
    return figure


def _means(tag: str, runs: Sequence[Sequence[Mapping[str, float]]]) -> dict[float, Statistic]:
    """Over the runs; by epoch where a line has one, else by step."""
    values: dict[float, list[float]] = defaultdict(list)
    for lines in runs:
        of_run = {line.get("epoch", line["step"]): line[tag] for line in lines if tag in line}
        for x, value in of_run.items():
            values[x].append(value)
    return {x: statistic(values[x]) for x in sorted(values)}


def _draw_line(axes: Axes, means: Mapping[float, Statistic], style: Style, *, with_band: bool) -> None:
    xs, marker = list(means), "o" if with_band and len(means) < FEW_POINTS else ""
    own: dict[str, Any] = {"color": style.color, "linestyle": style.line, "marker": marker, "markersize": 3}
    axes.plot(xs, [mean.mean for mean in means.values()], linewidth=1.4 if with_band else 0.9, **own)
    if with_band:
        low, high = ([vars(mean)[edge] for mean in means.values()] for edge in ("low", "high"))
        axes.fill_between(xs, low, high, color=style.color, alpha=0.15, linewidth=0)


def _draw_horizons(groups: Sequence[Group], metric: str) -> Figure:
    """A metric by how far ahead a prediction looks, and dotted the same of other forecasts; lines are means."""
    found = {run.folder: run.by_horizon for group in groups for run in group.runs if run.by_horizon}
    names = list(dict.fromkeys(name for of_run in found.values() for name in of_run))
    if not names:
        raise ConfigError("--plot horizon: no run has metrics by horizon")
    metric, *others = beside(metric if metric in names else names[0], names)
    figure, (axes,) = panels(1, size=PANEL)
    styles = styles_of(groups)
    for group, style in zip(groups, styles.of_groups, strict=True):
        for name in (metric, *others):
            rows = [found[run.folder][name] for run in group.runs if name in found.get(run.folder, {})]
            means = {step: statistic([row[step] for row in rows if step in row]) for row in rows for step in row}
            own = style if name == metric else replace(style, line=":")
            _draw_line(axes, dict(sorted(means.items())), own, with_band=name == metric and len(groups) <= FEW_BANDS)
    label_panel(axes, "", "times ahead", metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _finish(figure, [axes], styles, [f"dotted: {', '.join(others)}"] if others else [], lines=True)
    return figure


def _last_steps(run: RunRecord) -> float | None:
    return next((line[STEPS] for line in reversed(curves(run)) if STEPS in line), None)


def _draw_points(groups: Sequence[Group], xs: Sequence[Cell], x: str, y: str, plot: str) -> Figure:
    """A point for each group that has both values; bars show the std."""
    points = [(a, group.cell(y)) for a, group in zip(xs, groups, strict=True)]
    both = {n: (a, b) for n, (a, b) in enumerate(points) if isinstance(a, Statistic) and isinstance(b, Statistic)}
    if not both:
        raise ConfigError(f"--plot {plot}: no group of runs has both {x} and {y}")
    figure, (axes,) = panels(1, size=PANEL)
    styles = styles_of(groups).of(both)
    for index, (a, b) in both.items():
        own: dict[str, Any] = {"fmt": styles.of_groups[index].marker, "color": styles.of_groups[index].color}
        axes.errorbar(a.mean, b.mean, _bar(b), _bar(a), capsize=3, elinewidth=1, **own)
    _scale(axes.set_xscale, [a.mean for a, _ in both.values()])
    _scale(axes.set_yscale, [b.mean for _, b in both.values()])
    label_panel(axes, "", NAMES.get(x, x), NAMES.get(y, y))
    without = [group.label() for index, group in enumerate(groups) if index not in both]
    named = ", ".join(without) if len(", ".join(without)) < 40 else f"{len(without)} of {len(groups)} groups"
    notes = [f"without {x} or {y}: {named}"] if without else []
    if any(a.std or b.std for a, b in both.values()):
        notes.append("bars: std over the runs")
    _finish(figure, [axes], styles, notes, lines=False)
    return figure


def _bar(value: Statistic) -> list[list[float]] | None:
    """How far the error bar goes down and up, if there is one."""
    return [[value.mean - value.low], [value.high - value.mean]] if value.std else None


def _scale(set_scale: Callable[[str], None], numbers: Sequence[float]) -> None:
    if is_wide([number for number in numbers if math.isfinite(number)]):
        set_scale("log")


def _finish(figure: Figure, all_axes: Sequence[Axes], styles: Styles, notes: Sequence[str], *, lines: bool) -> None:
    """Adds the notes above the panels, and what explains the styles beside them."""
    hidden = [f"not told apart: {', '.join(styles.left_out)} (the first keys of --by are)"] if styles.left_out else []
    width = int(figure.get_size_inches()[0] * 15)  # characters of this size
    if notes or hidden:
        figure.suptitle("\n".join(fill(line, width) for line in [*notes, *hidden]), fontsize=8, parse_math=False)
    styles.explain(figure, all_axes, lines=lines)
