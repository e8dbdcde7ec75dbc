"""Figures of a regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from node_cli.tasks.image_grid import DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TARGETS = 6


def predictions_against_targets(predictions: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> Figure:
    """A point for each sample, in a panel for each of the first targets; on the line, a prediction is right.

    Args:
        predictions: `(n, k)`, in the units of the user.
        targets: likewise.
        names: those of the targets.
    """
    from matplotlib.figure import Figure

    shown = names[:MOST_TARGETS]
    figure = Figure(figsize=(3.6 * len(shown) + 0.4, 3.8), dpi=DPI, layout="constrained")
    for i, (name, axes) in enumerate(zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True)):
        axes.plot(targets[:, i], predictions[:, i], ".", alpha=0.6)
        ends = [targets[:, i].min(initial=np.inf), targets[:, i].max(initial=-np.inf)]
        if len(targets):
            axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.set_title(name, fontsize=10, parse_math=False)
        axes.set_xlabel("target")
        axes.set_ylabel("prediction")
        axes.grid(alpha=0.3)
    return figure
