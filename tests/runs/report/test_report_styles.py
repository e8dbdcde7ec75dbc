"""Pictures of 3, 12 and 40 runs: all that is written can be read, and nothing lies on anything else."""

from __future__ import annotations

import json
from itertools import combinations, product

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from node_cli.runs.report.grouping import differing_keys, group_runs
from node_cli.runs.report.plots import draw
from node_cli.runs.report.reading import read_runs
from node_cli.runs.report.styles import MOST_ENTRIES, Style, styles_of

pytestmark = pytest.mark.slow

MODELS = ("odenet", "resnet", "mlp")
SWEEPS = {
    "3 models": [{"model": model} for model in MODELS],
    "12 of three choices": [
        {"model": model, "solver": solver, "gradient": gradient}
        for model, solver, gradient in product(MODELS, ("dopri5", "tsit5"), ("direct", "checkpoint"))
    ],
    "12 of six tolerances and two seeds": [
        {"solver.rtol": rtol, "seed": seed} for rtol in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6) for seed in (0, 1)
    ],
    "40 of one range": [{"solver.rtol": 1.2345678901234e-5 * 1.3**n} for n in range(40)],
    "40 drawn": [{"solver.rtol": 0.0123456789 / (1 + n), "model.width": 4 + n % 7, "seed": n} for n in range(40)],
    "40 of three choices": [
        {"model": model, "solver": solver, "solver.rtol": rtol}
        for model, solver, rtol in product(MODELS[:2], ("dopri5", "tsit5"), [10.0**-n for n in range(10)])
    ],
    "40 of one choice": [{"model": f"the {n} of my own experiments, with a rather long name"} for n in range(40)],
    "odd names": [{"model": "_hidden"}, {"model": "cost in $x_1"}, {"model": "$x_1$ and ^^"}, {"model": "n" * 500}],
}


@pytest.fixture(params=SWEEPS)
def groups(request, make, tmp_path):
    """The sweep in its rows; errors fall and evaluations grow from run to run."""
    for number, values in enumerate(SWEEPS[request.param]):
        keys = {key: value for key, value in values.items() if "." in key or key == "seed"}
        choices = {key: value for key, value in values.items() if key not in keys}
        error, nfe = 0.5 / (1 + number), 14.0 + 6 * number
        costs = {"seconds": {"training": 2.0 + number}, "memory": {"peak_mb": 380.0 + 3 * number}}
        folder = make(str(number), {"test/error": error}, keys, choices=choices, nfe={"nfe/forward": nfe}, **costs)
        lines = [{"step": 10 * n, "train/loss": 2 / n, "nfe/forward": nfe, "solver/accepted": n} for n in (1, 2, 3)]
        lines += [{"step": 30 * n, "epoch": n, "val/loss": 3 / n, "val/error": error / n} for n in (1, 2)]
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    runs = read_runs([tmp_path / "outputs"])
    return group_runs(runs, differing_keys(runs))


@pytest.mark.parametrize("plot", ["curves", "nfe"])
def test_all_can_be_read(plot, groups):
    figure = draw(plot, groups, ["test/error"])
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    parts = [axes.get_tightbbox(renderer) for axes in figure.axes if axes.axison]
    parts += [legend.get_window_extent(renderer) for legend in figure.legends]
    parts += [figure._suptitle.get_window_extent(renderer)] if figure.get_suptitle() else []
    for part in parts:
        assert 0 <= part.x0 < part.x1 <= figure.bbox.x1
        assert 0 <= part.y0 < part.y1 <= figure.bbox.y1
    assert not any(overlap(one, other) for one, other in combinations(parts, 2))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            labels = [label for label in axis.get_ticklabels() if label.get_visible() and label.get_text()]
            boxes = [label.get_window_extent(renderer) for label in labels]
            assert not any(overlap(one, other) for one, other in combinations(boxes, 2))
        is_panel = axes.axison and axes.get_label() != "<colorbar>"
        assert axes.get_window_extent().width > 300 or not is_panel  # of about 600: words leave the panels their room
    assert all(len(legend.get_texts()) <= MOST_ENTRIES for legend in figure.legends)


def overlap(one, other) -> bool:
    """By more than a rounding of a pixel."""
    across, up = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
    return across > 1 and up > 1


def legend_of(groups):
    figure = draw("nfe", groups, ["test/error"])
    (legend,) = figure.legends
    return legend.get_title().get_text(), [text.get_text() for text in legend.get_texts()], figure


@pytest.mark.parametrize("groups", ["12 of three choices"], indirect=True)
def test_a_few_groups_have_a_style_each_and_are_named_by_their_values(groups):
    title, labels, _ = legend_of(groups)
    assert title == "solver, model, gradient"
    assert labels[0] == "dopri5, mlp, checkpoint"
    assert len(set(labels)) == len(set(styles_of(groups).of_groups)) == 12


@pytest.mark.parametrize("groups", ["12 of six tolerances and two seeds"], indirect=True)
def test_of_one_key_the_values_are_enough(groups):
    title, labels, figure = legend_of(groups)
    assert (title, labels) == ("solver.rtol", ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1"])
    assert figure.get_suptitle() == "bars: std over the runs"


@pytest.mark.parametrize("groups", ["40 of one range"], indirect=True)
def test_many_numbers_are_a_scale(groups):
    figure = draw("nfe", groups, ["test/error"])
    assert not figure.legends
    assert figure.axes[1].get_ylabel() == "solver.rtol"
    assert figure.axes[1].get_yscale() == "log"
    assert len({style.color for style in styles_of(groups).of_groups}) == 40


@pytest.mark.parametrize("groups", ["40 of three choices"], indirect=True)
def test_many_groups_are_told_apart_by_the_first_keys_and_that_is_said(groups):
    title, labels, figure = legend_of(groups)
    assert (title, labels) == ("", ["solver=dopri5", "solver=tsit5", "model=odenet", "model=resnet"])
    assert figure.get_suptitle() == "not told apart: solver.rtol (the first keys of --by are)"
    assert len({(style.color, style.marker) for style in styles_of(groups).of_groups}) == 4


@pytest.mark.parametrize("groups", ["40 of one choice"], indirect=True)
def test_of_many_names_as_many_as_there_is_room_for(groups):
    _, labels, _ = legend_of(groups)
    assert len(labels) == 11
    assert labels[-1] == "30 others"


@pytest.mark.parametrize("groups", ["odd names"], indirect=True)
def test_names_are_shown_as_they_stand(groups):
    _, labels, _ = legend_of(groups)
    assert labels[:3] == ["$x_1$ and ^^", "_hidden", "cost in $x_1"]
    assert len(labels[3]) < 150


def test_twenty_styles_are_twenty(make, tmp_path):
    for number in range(MOST_ENTRIES):
        make(str(number), {"test/error": 0.1}, choices={"model": f"mine{number}"})
    groups = group_runs(read_runs([tmp_path / "outputs"]), ["model"])
    own = styles_of(groups).of_groups
    assert (
        len({(style.color, style.line) for style in own}) == len({(style.color, style.marker) for style in own}) == 20
    )
    assert Style() not in own


@pytest.mark.parametrize(("losses", "low"), [((0.1, 0.1, 2.0), 0.1), ((-3.0, 0.1, 2.0), -2.82)])
def test_a_band_goes_no_further_than_the_runs(losses, low, make, tmp_path):
    for number, loss in enumerate(losses):
        folder = make(str(number), {"test/error": 0.1}, {"seed": number})
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "val/loss": loss}) + "\n")
    figure = draw("curves", group_runs(read_runs([tmp_path / "outputs"]), []), ["test/error"])
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(low, abs=0.01)
