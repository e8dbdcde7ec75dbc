"""Pictures of a study, by Optuna's own plots."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator

import matplotlib as mpl
import numpy as np
import optuna
import optuna.visualization.matplotlib as draw
from optuna.trial import FrozenTrial, TrialState

from node_cli.tuning.study import SharedStudy


def pictures(shared: SharedStudy) -> Iterator[tuple[str, bytes | str]]:
    """File names and PNGs; in place of one that cannot be drawn, a sentence that says why."""
    mpl.use("Agg")
    finished = [trial for trial in shared.trials() if trial.state == TrialState.COMPLETE]
    for name, plot in _plots(shared).items():
        yield f"{name}.png", _png(plot) if len(finished) > 1 else "two trials must have finished"


def _plots(shared: SharedStudy) -> dict[str, Callable[[], object]]:
    study, objectives = shared.study, shared.settings.objectives
    plots: dict[str, Callable[[], object]] = {}
    for index, objective in enumerate(objectives):
        suffix = f"_{objective.metric.replace('/', '_')}" if len(objectives) > 1 else ""
        for name, plot in OF_EACH_OBJECTIVE.items():
            plots[name + suffix] = _of_one(plot, study, index, objective.metric)
    if len(objectives) in (2, 3):
        names = [objective.metric for objective in objectives]
        plots["pareto"] = lambda: draw.plot_pareto_front(study, target_names=names)
    return plots


def _of_one(plot: Callable[..., object], study: optuna.Study, index: int, metric: str) -> Callable[[], object]:
    def value(trial: FrozenTrial) -> float:
        return float(trial.values[index])

    return lambda: plot(study, target=value, target_name=metric)


def _png(plot: Callable[[], object]) -> bytes | str:
    from matplotlib import pyplot

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls its plots experimental, and some trials fit no picture
            axes = plot()
        figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
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
