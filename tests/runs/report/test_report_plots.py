"""What the figures show, by numbers worked out by hand."""

import json

import pytest

from node_cli.config import ConfigError
from node_cli.runs.report.grouping import group_runs
from node_cli.runs.report.plots import draw
from node_cli.runs.report.reading import read_runs


@pytest.fixture
def groups(make, tmp_path):
    """Two seeds of one width, and one run of another that has no NFE."""
    for name, width, error, loss in (("1", 8, 0.1, 1.0), ("2", 8, 0.3, 3.0), ("3", 4, 0.5, 5.0)):
        nfe = {"nfe": {"nfe/forward": 20.0 + 100 * error}} if width == 8 else {}
        costs = {"seconds": {"training": 10 * error}, "memory": {"peak_mb": 100 * loss}}
        folder = make(name, {"test/error": error}, {"model.width": width}, **nfe, **costs)
        lines = [{"step": 10, "train/loss": loss}, {"step": 20, "epoch": 1, "val/loss": loss, "val/error": "nan"}]
        lines += [{"step": 30, "solver/accepted": 2 * loss}] * (width == 8)
        (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"step": 40')
    return group_runs(read_runs([tmp_path / "outputs"]), ["model.width"])


def points(figure):
    """Where the middles of the error bars are."""
    return [
        tuple(float(line.get_data()[i][0]) for i in (0, 1))
        for line in figure.axes[0].lines[::1]
        if line.get_marker() == "o"
    ]


def test_curves_are_means_with_bands_of_the_deviation(groups):
    figure = draw("curves", groups, ["test/error"])
    assert [axes.get_title() for axes in figure.axes] == ["train/loss", "val/loss", "val/error"]
    assert [axes.get_xlabel() for axes in figure.axes[:2]] == ["step", "epoch"]
    train, validation = figure.axes[:2]
    assert [line.get_xydata().tolist() for line in train.lines] == [[[10, 5]], [[10, 2]]]
    assert [line.get_xydata().tolist() for line in validation.lines] == [[[1, 5]], [[1, 2]]]
    band = train.collections[1].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((1, 3))  # one std is 2**0.5, further than any run
    assert figure.get_suptitle() == "line: mean of the runs; band: std"


def test_curves_say_which_runs_are_not_in_them(groups):
    (groups[0].runs[0].folder / "metrics.jsonl").unlink()
    figure = draw("curves", groups, ["test/error"])
    assert figure.get_suptitle().splitlines()[0] == "1 of 3 runs have no metrics.jsonl"


@pytest.mark.parametrize("line", ["{", "[1]", "7", '{"val/loss": 1}', '{"step": 1, "val/loss": "low"}', "null"])
def test_damaged_curves_are_refused_by_their_line(line, groups):
    folder = groups[0].runs[0].folder
    with (folder / "metrics.jsonl").open("w") as file:
        file.write('{"step": 1, "val/loss": "inf"}\n' + f"{line}\n" + '{"step": 2}\n')
    with pytest.raises(ConfigError, match=f"metrics.jsonl, line 2 is damaged: .* --where 'folder!={folder}'"):
        draw("curves", groups, ["test/error"])


def test_error_against_nfe_says_who_has_none(groups):
    figure = draw("nfe", groups, ["parameters", "test/error"])
    assert points(figure) == [pytest.approx((40, 0.2))]
    assert figure.get_suptitle() == "without nfe/forward or test/error: model.width=4\nbars: std over the runs"
    labels = figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    assert labels == ("NFE forward (evaluations per pass)", "test/error")


def test_error_against_seconds(groups):
    assert points(draw("seconds", groups, ["test/error"])) == [pytest.approx((5, 0.5)), pytest.approx((2, 0.2))]


def test_memory_against_steps_or_nfe(groups, tmp_path):
    figure = draw("memory", groups, ["test/error"])
    assert points(figure) == [pytest.approx((4, 200))]
    assert figure.axes[0].get_xlabel() == "accepted steps per pass"
    for run in groups[1].runs:
        (run.folder / "metrics.jsonl").unlink()
    figure = draw("memory", groups, ["test/error"])
    assert points(figure) == [pytest.approx((40, 200))]
    assert figure.axes[0].get_xlabel() == "NFE forward (evaluations per pass)"


def test_many_groups_have_many_colors(make, tmp_path):
    for index in range(12):
        make(str(index), {"test/error": 0.1}, {"model.width": index}, seconds={"training": index})
    groups = group_runs(read_runs([tmp_path / "outputs"]), ["model.width"])
    figure = draw("seconds", groups, ["test/error"])
    assert len({tuple(line.get_color()) for line in figure.axes[0].lines if line.get_marker() == "o"}) == 12
