"""Pictures of a study, by Optuna's own plots."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import matplotlib as mpl
import numpy as np
import optuna.visualization.matplotlib as draw
from optuna.trial import FrozenTrial, TrialState

from node_cli.tuning.study import SharedStudy

DRAWN_OBJECTIVES = 3  # of a front


def pictures(shared: SharedStudy) -> Iterator[tuple[str, bytes | str]]:
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
        f"{name}_{metric.replace('/', '_')}": partial(plot, study, target=partial(_value, index), target_name=metric)
        for index, metric in enumerate(names)
        for name, plot in OF_EACH_OBJECTIVE.items()
    }
    if len(names) <= DRAWN_OBJECTIVES:
        plots["pareto"] = partial(draw.plot_pareto_front, study, target_names=names)
    return plots


def _value(index: int, trial: FrozenTrial) -> float:
    return float(trial.values[index])


def _png(plot: Callable[[], object]) -> bytes | str:
    from matplotlib import pyplot

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls its plots experimental, and some trials fit no picture
            axes = plot()
        figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
        figure.set_size_inches(8, 5)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110, bbox_inches="tight")
        return content.getvalue()
    except (ValueError, RuntimeError) as error:
        return str(error).partition("\n")[0]
    finally:
        pyplot.close("all")


OF_EACH_OBJECTIVE: dict[str, Callable[..., object]] = {
    "history": draw.plot_optimization_history,
    "importance": draw.plot_param_importances,
    "parallel": draw.plot_parallel_coordinate,
}
