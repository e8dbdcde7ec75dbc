"""Optuna's figures, so that they can be read."""

from __future__ import annotations

from functools import partial

import matplotlib as mpl
import optuna
import pytest
from matplotlib import pyplot
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from node_cli.tuning.plots import OF_EACH_OBJECTIVE, _png

KEYS = {
    "optimizer.weight_decay": FloatDistribution(1e-6, 1e-1, log=True),
    "scheduler.warmup_fraction": FloatDistribution(0, 1),
    "gradient": CategoricalDistribution(["direct", "adjoint"]),
}


def study(direction: str) -> optuna.Study:
    made = optuna.create_study(direction=direction)
    for value in (0.1, 0.2, 0.5, 0.9):
        params = {"optimizer.weight_decay": 0.1 * value, "scheduler.warmup_fraction": value}
        params["gradient"] = "direct" if value < 0.3 else "adjoint"
        made.add_trial(create_trial(params=params, distributions=KEYS, value=value))
    return made


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(("direction", "best"), [("minimize", 0), ("maximize", -1)])
def test_lines_and_names_of_the_parallel_plot_can_be_read(direction, best):
    axes = OF_EACH_OBJECTIVE["parallel"](study(direction), target_name="val/error")
    (lines,) = axes.collections
    axes.figure.canvas.draw()
    brightness = [0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue, _ in lines.get_colors()]
    assert max(brightness) < 0.75  # on white
    values = list(lines.get_array())
    assert brightness[values.index(sorted(values)[best])] == min(brightness)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["val/error", "gradient", *list(KEYS)[:2]]
    pyplot.close("all")


def test_optunas_style_stays_with_its_figures():
    before = mpl.rcParams["axes.facecolor"]
    assert _png(partial(OF_EACH_OBJECTIVE["history"], study("minimize"), target_name="val/error"))[:4] == b"\x89PNG"
    assert mpl.rcParams["axes.facecolor"] == before == "white"
