"""Pictures over many runs: curves with bands over seeds, error against cost, memory against steps."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import MaxNLocator

from node_cli.analysis.report.grouping import Figure, Group, figure
from node_cli.analysis.report.progress import curves
from node_cli.analysis.report.record import Run
from node_cli.config import ConfigError

STEPS, NFE, MEMORY = "solver/accepted", "nfe/forward", "memory.peak_mb"
Cell = Figure | str | None
FEW_POINTS = 30  # drawn as dots too
LINES = ("-", "--", "-.", ":")  # of groups beside each other: what lies on top of each other shows
Color = tuple[float, float, float, float]
CURVES = ("train/loss", "val/loss")


def draw(plot: str, groups: Sequence[Group], columns: Sequence[str]) -> Picture:
    """One of the pictures; errors are the first of the columns that are metrics.

    Raises:
        ConfigError: there is nothing to draw in it.
    """
    metrics = {tag for group in groups for run in group.runs for tag in run.summary["metrics"]}
    metric = next((column for column in columns if column in metrics), None)
    if metric is None:
        raise ConfigError(f"--plot {plot}: no run has metrics")
    if plot == "curves":
        return draw_curves(groups, metric)
    if plot == "memory":
        return draw_memory(groups)
    return draw_against(groups, metric, NFE if plot == "nfe" else "seconds.training", plot)


def draw_curves(groups: Sequence[Group], metric: str) -> Picture:
    """Losses, the metric on the validation split and NFE; a line is the mean of a group, its band the deviation."""
    lines = {run.folder: curves(run) for group in groups for run in group.runs}
    wanted = [*CURVES, f"val/{metric.rpartition('/')[2]}", NFE]
    there = {tag for run in lines.values() for line in run for tag in line}
    tags = [tag for tag in dict.fromkeys(wanted) if tag in there]
    if not tags:
        raise ConfigError(f"--plot curves: no run has {', '.join(wanted)} in its metrics.jsonl")
    picture, panels = _panels(len(tags))
    num_empty = sum(not run for run in lines.values())
    if num_empty:
        picture.suptitle(f"{num_empty} of {len(lines)} runs have no metrics.jsonl", fontsize=8)
    for axes, tag in zip(panels, tags, strict=False):
        for index, group in enumerate(groups):
            series = [_series(lines[run.folder], tag) for run in group.runs]
            style = {"color": _color(index, len(groups)), "linestyle": LINES[index % len(LINES)]}
            _draw_band(axes, series, group.label(), style)
        axes.set_title(tag, fontsize=11)
        axes.set_xlabel("epoch" if tag.startswith("val/") else "step")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _add_legend(picture, panels)
    return picture


def _series(lines: Sequence[Mapping[str, float]], tag: str) -> dict[float, float]:
    """By epoch where the line has one, else by step."""
    return {line.get("epoch", line["step"]): line[tag] for line in lines if tag in line}


def _draw_band(axes: Axes, series: Sequence[Mapping[float, float]], label: str, style: dict[str, Any]) -> None:
    values: dict[float, list[float]] = defaultdict(list)
    for each in series:
        for x, value in each.items():
            values[x].append(value)
    xs = sorted(values)
    means = [figure(values[x]) for x in xs]
    if xs:
        marker = "o" if len(xs) < FEW_POINTS else ""
        axes.plot(xs, [m.mean for m in means], label=label, marker=marker, markersize=3, **style)
        low, high = ([m.mean + sign * (m.deviation or 0.0) for m in means] for sign in (-1, 1))
        axes.fill_between(xs, low, high, color=style["color"], alpha=0.2, linewidth=0)


def draw_against(groups: Sequence[Group], y: str, x: str, option: str) -> Picture:
    """A point for each group that has both figures; bars are deviations."""
    return _scatter([(group.label(), group.cell(x), group.cell(y)) for group in groups], x, y, option)


def draw_memory(groups: Sequence[Group]) -> Picture:
    """Peak memory against the steps of the last solves; against NFE where none were counted."""
    steps = [[count for count in map(_last_steps, group.runs) if count is not None] for group in groups]
    if not any(steps):
        return draw_against(groups, MEMORY, NFE, "memory")
    points = [
        (group.label(), figure(counts) if counts else None, group.cell(MEMORY))
        for group, counts in zip(groups, steps, strict=True)
    ]
    return _scatter(points, STEPS, MEMORY, "memory")


def _last_steps(run: Run) -> float | None:
    return next((line[STEPS] for line in reversed(curves(run)) if STEPS in line), None)


def _scatter(points: Sequence[tuple[str, Cell, Cell]], x: str, y: str, option: str) -> Picture:
    drawn = {label for label, a, b in points if isinstance(a, Figure) and isinstance(b, Figure)}
    if not drawn:
        raise ConfigError(f"--plot {option}: no group of runs has both {x} and {y}")
    picture, panels = _panels(1)
    left_out = [label for label, *_ in points if label not in drawn]
    if left_out:
        named = ", ".join(left_out)
        named = named if len(named) < 40 else f"{len(left_out)} of {len(points)} groups"
        panels[0].set_title(f"lacking {x} or {y}: {named}", fontsize=8)
    for index, (label, a, b) in enumerate(points):
        if not isinstance(a, Figure) or not isinstance(b, Figure):
            continue
        xerr, yerr, color = a.deviation or 0.0, b.deviation or 0.0, _color(index, len(points))
        panels[0].errorbar(a.mean, b.mean, yerr, xerr, fmt="o", capsize=3, color=color, label=label)
    panels[0].set_xlabel(x)
    panels[0].set_ylabel(y)
    _add_legend(picture, panels)
    return picture


def png(picture: Picture) -> bytes:
    """The content of a PNG file."""
    content = io.BytesIO()
    picture.savefig(content, format="png")
    return content.getvalue()


def _panels(count: int) -> tuple[Picture, list[Axes]]:
    columns = min(count, 2)
    rows = -(-count // columns)
    picture = Picture(figsize=(5.4 * columns, 3.8 * rows), dpi=110, layout="constrained")
    panels = list(picture.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[:count]:
        axes.grid(alpha=0.3)
    for axes in panels[count:]:
        axes.set_axis_off()
    return picture, panels[:count]


def _add_legend(picture: Picture, panels: Sequence[Axes]) -> None:
    """Below the panels, each group once."""
    labelled = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    columns = max(1, min(len(labelled), 100 // max(len(label) + 6 for label in labelled)))
    picture.legend(
        list(labelled.values()), list(labelled), loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )


def _color(index: int, count: int) -> Color:
    """Ten that can be told apart, else a scale."""
    color = colormaps["tab10"](index) if count <= 10 else colormaps["viridis"](index / (count - 1))
    return (color[0], color[1], color[2], color[3])
