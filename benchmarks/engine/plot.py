"""The figures of the benchmark as a picture."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from benchmarks.engine.peak import MIB

SMALL = ("spiral", "lotka_volterra", "ffjord")
SHOWN = (*SMALL, *(f"{name}_gpu" for name in SMALL), "mnist", "mnist_gpu", "memory")
COLOURS = {"ours": "C0", "torchdiffeq": "C1", "torchode": "C2", "diffrax": "C5"}
ORDER = {"direct": 0, "checkpoint": 1, "adjoint": 2}


def draw(results: dict[str, Any]) -> bytes:
    """A PNG: bars of step times with their ratio to torchdiffeq, and memory against steps, of the cases there are."""
    names = [name for name in SHOWN if name in results]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(6.6 * columns, 6.0 * rows), dpi=110, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for name, axes in zip(names, panels, strict=False):
        if name == "memory":
            _memory(axes, results[name])
        else:
            _bars(axes, results[name]["rows"])
            axes.set_title(textwrap.fill(results[name]["title"], 48), fontsize=11)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _bars(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """In float32, ours with a carried step, by gradient, fastest on top; labels: speed relative to torchdiffeq."""
    ours_carried = [row for row in rows if row["solver"] != "ours" or row["first_step"] == "carried"]
    rows = [row for row in ours_carried if row["precision"] == "float32"]
    rows = sorted(rows, key=lambda row: (ORDER[row["gradient"]], row["seconds"]["median"]))
    values, low, high = ([1e3 * row["seconds"][key] for row in rows] for key in ("median", "q1", "q3"))
    spread = [np.subtract(values, low), np.subtract(high, values)]
    colours = [COLOURS[row["solver"]] for row in rows]
    places = range(len(rows))
    bars = axes.barh(places, values, color=colours, xerr=spread)
    axes.set_yticks(places, [_label(row) for row in rows], fontsize=8)
    axes.bar_label(bars, [f"{row['times_peer']['median']:.2g}x" for row in rows], padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2)
    axes.set_xlabel("ms (labels: speed against torchdiffeq)", fontsize=9)
    axes.grid(axis="x", alpha=0.3)


def _label(row: dict[str, Any]) -> str:
    compiled = f", {row['compile']}" if row["solver"] == "ours" and row["compile"] != "none" else ""
    network = f", {row['network']} network" if row["network"] != "ours" else ""
    keys = f", {row['solver_keys']}" if row["solver_keys"] else ""
    return f"{row['gradient']}: {row['solver']}{compiled}{network}{keys}"


def _memory(axes: Axes, result: dict[str, Any]) -> None:
    for row in result["rows"]:
        mib = [value / MIB for value in row["bytes"]]
        axes.plot(result["steps"], mib, label=row["contender"], marker="o", markersize=3)
    axes.set(title="peak memory, state of 1 MiB", xlabel="steps (rk4)", ylabel="MiB", xscale="log", yscale="log")
    axes.set_xticks(result["steps"], [str(steps) for steps in result["steps"]], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
