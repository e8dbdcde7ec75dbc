"""Figures of a study, by Optuna's own plots."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
import optuna.visualization.matplotlib as draw
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from optuna.trial import TrialState

from node_cli.figures import file_of
from node_cli.tuning.study import SharedStudy

DRAWN_OBJECTIVES = 3  # of a front


def figures(shared: SharedStudy) -> Iterator[tuple[str, bytes | str]]:
    """File names and PNGs; in place of one that cannot be drawn, a sentence that says why."""
    mpl.use("Agg")
    finished = [trial for trial in shared.trials() if trial.state == TrialState.COMPLETE]
    for name, plot in _plots(shared).items():
        yield f"{name}.png", _png(plot) if len(finished) > 1 else "two trials must have finished"


def _plots(shared: SharedStudy) -> dict[str, Callable[[], object]]:
    study, names = shared.study, [objective.metric for objective in shared.settings.objectives]
    if len(names) == 1:  # then Optuna draws the best value so far as well
        return {name: partial(plot, study, target_name=names[0]) for name, plot in OF_EACH_OBJECTIVE.items()}
    plots: dict[str, Callable[[], object]] = {
        f"{name}_{metric.replace('/', '_')}": partial(
            plot, study, target=lambda trial, index=index: float(trial.values[index]), target_name=metric
        )
        for index, metric in enumerate(names)
        for name, plot in OF_EACH_OBJECTIVE.items()
    }
    if len(names) <= DRAWN_OBJECTIVES:
        plots["pareto"] = partial(draw.plot_pareto_front, study, target_names=names)
    return plots


def _png(plot: Callable[[], object]) -> bytes | str:
    from matplotlib import pyplot

    try:
        with warnings.catch_warnings(), mpl.rc_context():  # Optuna changes the style for all that is drawn afterwards
            warnings.simplefilter("ignore")  # Optuna calls its plots experimental, and some trials fit no figure
            axes = plot()
        figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
        figure.set_size_inches(max(8.0, 1.6 * len(figure.axes)), 5)
        return file_of(figure, dpi=110, bbox_inches="tight")
    except (ValueError, RuntimeError) as error:
        return str(error).partition("\n")[0]
    finally:
        pyplot.close("all")


def _parallel(study: optuna.Study, **target: Any) -> Axes:
    """Optuna's, in colours that stand out from the white behind them, with whole names and numbers that show."""
    axes = draw.plot_parallel_coordinate(study, **target)
    (lines,) = (each for each in axes.collections if isinstance(each, LineCollection))
    scale = colormaps["viridis"](np.linspace(0.0, 0.8, 256))  # the best are dark
    lines.set_cmap(ListedColormap(scale if lines.get_cmap().name == "Blues_r" else scale[::-1]))
    lines.set_linewidth(1.6)
    axes.grid(visible=False)
    keys = sorted({key for trial in study.trials for key in trial.params}, key=len)
    cut = [label.get_text() for label in axes.get_xticklabels()]  # a long key ends in "..."
    names = [next((k for k in keys if text.endswith("...") and k.startswith(text[:-3])), text) for text in cut]
    axes.set_xticks(range(len(names)), names, rotation=20, ha="right", rotation_mode="anchor", fontsize=9)
    for scale_axes in axes.figure.axes:
        for label in scale_axes.get_yticklabels(which="both"):
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})
    return axes


OF_EACH_OBJECTIVE: dict[str, Callable[..., object]] = {
    "history": draw.plot_optimization_history,
    "importance": draw.plot_param_importances,
    "parallel": _parallel,
}
