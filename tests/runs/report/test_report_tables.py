"""Rows, figures and formats, by numbers worked out by hand."""

import math

import pytest

from node_cli.files import finite
from node_cli.runs.report.filters import text
from node_cli.runs.report.formats import plain
from node_cli.runs.report.grouping import Statistic, statistic


@pytest.fixture
def grid(make):
    """Two widths, three and one seeds: 0.1, 0.2, 0.6 have mean 0.3 and std sqrt((0.04 + 0.01 + 0.09) / 2)."""
    for seed, error in enumerate((0.1, 0.2, 0.6)):
        make(f"wide_{seed}", {"test/error": error}, {"model.width": 8, "seed": seed}, parameters=100)
    make("narrow", {"test/error": 0.25}, {"seed": 1, "run_dir": "elsewhere"}, parameters=50, nfe={"nfe/forward": 20.5})


COUNT = "4 runs: 4 finished"


def test_terminal(grid, typed):
    assert typed().out == (
        "model.width  runs   test/error  parameters  nfe/forward\n"
        "4               1       0.2500          50        20.50\n"
        "8               3  0.30 ± 0.26         100            -\n"
        f"\n{COUNT}\n"
    )


def test_markdown(grid, typed):
    assert typed("--format", "markdown").out == (
        "| model.width | runs | test/error | parameters | nfe/forward |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| 4 | 1 | 0.2500 | 50 | 20.50 |\n"
        "| 8 | 3 | 0.30 ± 0.26 | 100 | - |\n"
        f"\n- {COUNT}\n"
    )


def test_csv_has_mean_and_deviation_apart(grid, typed):
    result = typed("--format", "csv", "--show", "test/error", "nfe/forward", "solver.method")
    names, narrow, wide = (line.split(",") for line in result.out.splitlines())
    figures = [f"{name} {what}" for name in ("test/error", "nfe/forward") for what in ("mean", "std")]
    assert names == ["model.width", "runs", *figures, "solver.method"]
    assert narrow == ["4", "1", "0.25", "", "20.5", "", "dopri5"]
    assert [float(wide[2]), float(wide[3])] == pytest.approx([0.3, math.sqrt(0.07)])
    assert wide[:2] + wide[4:] == ["8", "3", "", "", "dopri5"]
    assert result.err == f"{COUNT}\n"


def test_latex(grid, typed):
    assert typed("--format", "latex").out == (
        "\\begin{tabular}{lrrrr}\n\\hline\n"
        "model.width & runs & test/error & parameters & nfe/forward \\\\\n\\hline\n"
        "4 & 1 & $0.2500$ & $50$ & $20.50$ \\\\\n"
        "8 & 3 & $0.30 \\pm 0.26$ & $100$ & - \\\\\n"
        f"\\hline\n\\end{{tabular}}\n% {COUNT}\n"
    )


def test_signs_of_the_formats_are_escaped(make, typed):
    make("1", {"test/error": 1.5e-6}, {"solver.method": "a|b_c%&$#{}~^\\<"})
    words = ["--by", "solver.method", "--show", "test/error", "--format"]
    escaped = r"a|b\_c\%\&\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}"
    assert escaped + r" & 1 & $1.500 \times 10^{-6}$ \\" in typed(*words, "latex").out
    assert r"| a\|b_c%\&\$#{}\~^\\\< | 1 | 1.500e-06 |" in typed(*words, "markdown").out


def test_by_sort_and_show(grid, typed):
    def first_words(*words):
        return [line.split()[0] for line in typed(*words).out.splitlines()[1:] if line[:1].isdigit()][:-1]

    assert first_words("--by", "seed", "--sort", "runs") == ["0", "2", "1"]
    assert first_words("--by", "seed", "--sort", "-runs") == ["1", "0", "2"]
    assert first_words("--sort", "-test/error") == ["8", "4"]
    assert first_words("--sort", "nfe/forward") == ["4", "8"]  # what lacks it comes last, either way
    assert first_words("--sort", "-nfe/forward") == ["4", "8"]
    twice = typed("--by", "seed", "seed", "--show", "parameters", "parameters").out
    assert twice.splitlines()[0].split() == ["seed", "runs", "parameters"]
    assert "3 different" in typed("--by", "model", "--show", "folder", "--where", "model.width=8").out


def test_all_runs_are_one_row_if_they_differ_by_seed_alone(grid, typed):
    assert typed("--where", "model.width=8", "--show", "test/error").out.splitlines()[1] == "   3  0.30 ± 0.26"


def test_keys_that_follow_from_the_choice_are_left_out(make, typed):
    tsit5 = {"solver.method": "tsit5", "solver.rtol": 1e-4}
    make("1", {"test/error": 0.1}, choices={"solver": "dopri5", "model": "odenet"})
    make("2", {"test/error": 0.1}, tsit5, choices={"solver": "tsit5", "model": "odenet"})
    assert typed().out.split()[:2] == ["solver", "runs"]
    make("3", {"test/error": 0.1}, tsit5 | {"solver.rtol": 1e-5}, choices={"solver": "tsit5", "model": "odenet"})
    assert typed().out.split()[:3] == ["solver", "solver.rtol", "runs"]


def test_rows_are_sorted_as_numbers_and_what_lacks_the_key_comes_last(make, typed):
    for name, rtol in (("a", 1e-5), ("b", 0.01), ("c", 1), ("d", None), ("e", "text")):
        make(name, {"test/error": 0.1}, {"solver.rtol": rtol})
    make("f", {"test/error": 0.1}, {"solver": {"_target_": "x.Fixed"}}, nfe={})
    rows = typed("--by", "solver.rtol", "--show", "test/error").out.splitlines()[1:7]
    assert [row.split()[0] for row in rows] == ["1e-05", "0.01", "1", "text", "null", "-"]


def test_runs_of_one_seed_do_not_pass_for_runs_of_several(make, typed):
    for number, width in enumerate((8, 8, 8, 4, 4, 4)):
        make(str(number), {"test/error": 0.55}, {"model.width": width, "seed": number % 3 if width == 4 else 7})
    shown = typed("--show", "test/error").out.splitlines()
    assert [line.split() for line in shown[:3]] == [
        ["model.width", "runs", "seeds", "test/error"],
        ["4", "3", "3", "0.5500", "±", "0"],
        ["8", "3", "1", "0.5500"],
    ]
    assert shown[-2] == "model.width=8: 3 runs, 1 seed: runs of one seed say nothing about the std over seeds"
    assert typed("--format", "csv", "--show", "test/error").out.splitlines() == [
        *("model.width,runs,seeds,test/error mean,test/error std", "4,3,3,0.55,0", "8,3,1,0.55,")
    ]
    for name, row in (("latex", r"8 & 3 & 1 & $0.5500$ \\"), ("markdown", "| 8 | 3 | 1 | 0.5500 |")):
        assert row in typed("--format", name, "--show", "test/error").out


def test_numbers_that_a_search_has_drawn_get_as_many_digits_as_tell_them_apart(make, typed):
    drawn = (0.00012879373558378796, 0.00012879373558378799, 0.5, 3)
    for number, rtol in enumerate(drawn):
        make(str(number), {"test/error": 0.1}, {"solver.rtol": rtol, "model.width": 1.0 + rtol})
    rows = [line.split()[:2] for line in typed("--by", "solver.rtol", "model.width").out.splitlines()[1:5]]
    assert rows == [[repr(drawn[0]), "1"], [repr(drawn[1]), "1"], ["0.5", "1.5"], ["3", "4"]]
    rows = typed("--by", "solver.rtol", "--where", f"solver.rtol!={drawn[1]}").out.splitlines()
    assert rows[1].split()[0] == "0.0001288"
    full = typed("--by", "solver.rtol", "--format", "csv").out
    assert all(f"\n{rtol}," in full for rtol in drawn)


def test_a_number_that_some_runs_of_a_row_lack_is_noted(make, typed):
    make("1", {"test/error": 0.1})
    make("2", {"val/error": 0.1}, {"seed": 1})
    lines = typed("--by", "model.width", "--show", "test/error").out.splitlines()
    assert lines[1].split() == ["4", "2", "0.1000"]
    assert lines[-2] == "model.width=4: only 1 of 2 runs have test/error"


def test_without_a_test_error_the_first_metrics_are_shown(make, typed):
    make("1", {"val/loss": 0.5, "test/loss": 0.25})
    assert typed().out.splitlines()[:2] == ["runs  test/loss", "   1     0.2500"]


WHERE = {
    "model.width=8": 3,
    "model.width==8.0": 3,
    "model.width!=8": 1,
    "test/error<0.25": 2,
    "test/error<=0.25": 3,
    "test/error>0.25": 1,
    "test/error>=2.5e-1": 2,
    "nfe/forward>1": 1,
    "nfe/forward!=1": 4,
    "solver.rtol=1e-3": 4,
    "model._partial_=true": 4,
    "status=finished": 4,
    "status=failed": 0,
    "test/error>7": 0,
    "parameters = 50": 1,
}


@pytest.mark.parametrize("condition", WHERE)
def test_where(condition, grid, typed):
    left_out = 4 - WHERE[condition]
    kinds = [f"{WHERE[condition]} finished"] * bool(WHERE[condition]) + [f"{left_out} left out by --where"] * bool(
        left_out
    )
    assert typed("--where", condition).out.splitlines()[-1] == f"4 runs: {', '.join(kinds)}"


def test_several_conditions_hold_together(grid, typed):
    assert "4 runs: 1 finished, 3 left out" in typed("--where", "model.width=8", "seed=2").out
    assert "4 runs: 1 finished, 3 left out" in typed("--where", "model.width=8", "--where", "seed=2").out


SHOWN = {
    (0.0412, 0.00234, 3): "0.0412 ± 0.0023",
    (1234567.0, 1234.0, 3): "1234567 ± 1234",
    (457.34, 12.0, 2): "457 ± 12",
    (0.5, 12.0, 2): "0 ± 12",
    (1.23456e-5, 2e-7, 3): "(1.235 ± 0.020)e-05",
    (1.5e9, 2.5e8, 3): "(1.50 ± 0.25)e+09",
    (0.25, 0.0, 3): "0.2500 ± 0",
    (0.25, 1e-17, 3): "0.2500 ± 0",
    (-0.3, 0.1, 2): "-0.30 ± 0.10",
    (0.0, 0.0, 2): "0 ± 0",
    (0.25, None, 1): "0.2500",
    (123456.7, None, 1): "123457",
    (1.5e-7, None, 1): "1.500e-07",
    (math.nan, None, 2): "nan",
    (-math.inf, None, 2): "-inf",
}


@pytest.mark.parametrize(("mean", "std", "count"), SHOWN)
def test_digits(mean, std, count):
    assert plain(Statistic(mean, std, count)) == SHOWN[mean, std, count]


def test_mean_and_deviation():
    assert statistic([1.0]) == Statistic(1.0, None, 1)
    assert statistic([2, 4, 9]) == Statistic(5.0, pytest.approx(math.sqrt(13)), 3)
    assert statistic([610, 610]) == Statistic(610.0, 0.0, 2, exact=True)
    assert statistic([1.0, math.inf]) == Statistic(math.inf, None, 2)
    assert statistic([1e200, 3e200]).std == pytest.approx(math.sqrt(2) * 1e200)


def test_values_are_shown_as_in_yaml():
    assert [text(value) for value in (None, True, 1.0, 1, 0.001, [0.9, None], " a\n b")] == [
        *("null", "true", "1", "1", "0.001", "[0.9, null]", "a b")
    ]


ROWS = {"rmse": [1, 2, 3, 4], "persistence_rmse": [2, 4, 6, 8], "hare/rmse": [5.0] * 4}
AHEAD = {"steps": [1, 2, 3, 4], "metrics": ROWS}


def test_errors_by_horizon_stand_in_a_second_table_beside_those_of_other_forecasts(typed, make):
    for seed, factor in enumerate((1, 3)):
        metrics = {name: [factor * value for value in row] for name, row in AHEAD["metrics"].items()}
        details = {"by_horizon": {**AHEAD, "metrics": metrics}}
        make(f"{seed}", {"test/rmse": 2.5, "test/persistence_rmse": 5.0}, {"seed": seed}, details=details)
    make("other", {"test/rmse": 1.0}, {"model.width": 8})
    first, second, _ = typed("outputs").out.split("\n\n")
    columns = [f"test/{name}@{step}" for step in (1, 2, 4) for name in ("rmse", "persistence_rmse")]
    header, row, other = (line.split("  ") for line in second.splitlines())
    assert [cell.strip() for cell in header if cell] == ["model.width", "runs", *columns]
    assert [cell.strip() for cell in row if cell][2:4] == ["2.0 ± 1.4", "4.0 ± 2.8"]
    assert [cell.strip() for cell in other if cell][2:] == ["-"] * 6
    assert "@" not in first
    assert typed("outputs", "--format", "csv").out.splitlines()[0].count("@") == 12
    shown = typed("outputs", "--show", "test/hare/rmse@3").out
    assert "10.0 ± 7.1" in shown
    assert "persistence" not in shown


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"steps": [1]},
        {"steps": [1], "metrics": {"rmse": []}},
        {"steps": ["1"], "metrics": {}},
        {"steps": [1], "metrics": {"a": ["2"]}},
    ],
)
def test_metrics_by_horizon_that_are_none_are_named(typed, make, wrong):
    make("1", {"test/rmse": 2.5}, details={"by_horizon": wrong})
    assert "details.by_horizon must have steps, and metrics with a number for each of them" in typed("outputs").out


def test_what_json_has_no_number_for_is_shown_as_none(typed, make):
    ahead = finite({"steps": [1, 2], "metrics": {"rmse": (1.0, math.nan)}})
    assert ahead["metrics"] == {"rmse": [1.0, None]}
    make("1", {"test/rmse": 2.5}, details={"by_horizon": ahead})
    assert "nan" in typed("outputs", "--show", "test/rmse@2").out


def test_a_plot_of_the_horizon_has_a_dotted_line_for_other_forecasts(typed, make, tmp_path):
    make("1", {"test/rmse": 2.5, "test/persistence_rmse": 5.0}, details={"by_horizon": AHEAD})
    result = typed("outputs", "--plot", "horizon", "--out-dir", tmp_path)
    assert (tmp_path / "report_horizon.png").exists(), result.err
    make("2", {"test/error": 2.5})
    assert "--plot horizon: no run has metrics by horizon" in typed("outputs/2", "--plot", "horizon").err


def test_runs_of_several_tasks_and_metrics_have_a_table_each(typed, make):
    width, lynx = {"model.width": 8}, {"task": "trajectory", "dataset": "lynx_hare"}
    make("1", {"test/error": 0.1}, choices={"task": "classification", "dataset": "digits", "model": "odenet"})
    make("2", {"test/error": 0.2}, choices={"task": "classification", "dataset": "moons", "model": "odenet"})
    make("3", {"test/loss": 0.3}, objective={"metric": "loss", "goal": "min"}, choices=lynx)
    make("4", {"test/loss": 0.4}, width, objective={"metric": "loss", "goal": "min"}, choices=lynx)
    make("5", {"test/loss": 0.5, "test/track_km": 9.0}, choices=lynx | {"dataset": "storms"})
    tables = [[line.split() for line in part.splitlines()] for part in typed("outputs").out.split("\n\n")]
    assert tables[0] == [
        ["task=classification"],
        ["dataset", "runs", "test/error"],
        ["digits", "1", "0.1000"],
        ["moons", "1", "0.2000"],
    ]
    assert tables[1][:2] == [["task=trajectory,", "dataset=lynx_hare"], ["model.width", "runs", "test/loss"]]
    assert tables[2][0] == ["task=trajectory,", "dataset=storms"]
    assert tables[3] == [["5", "runs:", "5", "finished"]]
    assert len(typed("outputs", "--by", "dataset").out.split("\n\n")) == 2
    assert len(typed("outputs", "--format", "csv").out.splitlines()) == 6
    assert typed("outputs", "--sort", "test/track_km").out.startswith("task=classification\n")
