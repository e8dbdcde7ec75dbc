"""The figures of the benchmark as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.engine.memory import MIB

TITLES = {"mnist": "MNIST ODE-Net, training step", "gpu": "the same on a GPU", "small": "spiral, training step"}
COLOURS = {"ours": "C0", "torchdiffeq": "C1", "torchode": "C2", "torchdyn": "C4", "diffrax": "C5"}


def draw(results: dict[str, Any]) -> bytes:
    """A PNG: bars of step times with their ratio to torchdiffeq, and memory against steps, of the cases there are."""
    names = [name for name in (*TITLES, "memory") if name in results]
    figure = Figure(figsize=(6.6 * len(names), 5.0), dpi=130, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False).flat, names, strict=True):
        if name == "memory":
            _memory(axes, results[name])
        else:
            _bars(axes, results[name]["rows"])
            axes.set_title(TITLES[name], fontsize=11)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _bars(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """In float32, by gradient, fastest on top within each; the label is the speed relative to torchdiffeq."""
    order = {"direct": 0, "checkpoint": 1, "adjoint": 2}
    rows = [row for row in rows if row.get("precision", "float32") == "float32"]
    rows = sorted(rows, key=lambda row: (order[row["gradient"]], row["seconds"]["median"]))
    values, low, high = ([1e3 * row["seconds"][key] for row in rows] for key in ("median", "q1", "q3"))
    spread = [np.subtract(values, low), np.subtract(high, values)]
    colours = [COLOURS[row["solver"].partition(",")[0]] for row in rows]
    bars = axes.barh([_label(row) for row in rows], values, color=colours, xerr=spread)
    axes.bar_label(bars, [f"{row['times_peer']['median']:.2f}x" for row in rows], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("ms (labels: speed against torchdiffeq)", fontsize=9)
    axes.grid(axis="x", alpha=0.3)


def _label(row: dict[str, Any]) -> str:
    network = f", {row['network']} network" if row.get("network", "our") != "our" else ""
    return f"{row['gradient']}: {row['solver']}{network}"


def _memory(axes: Axes, result: dict[str, Any]) -> None:
    for row in result["rows"]:
        mib = [value / MIB for value in row["bytes"]]
        axes.plot(result["steps"], mib, label=row["contender"], marker="o", markersize=3)
    axes.set(title="peak memory, state of 1 MiB", xlabel="steps (rk4)", ylabel="MiB", xscale="log", yscale="log")
    axes.set_xticks(result["steps"], [str(steps) for steps in result["steps"]], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
