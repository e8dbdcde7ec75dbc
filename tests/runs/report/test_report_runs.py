"""Which folders are runs, and what is said of those that have not finished."""

import json
import os
import subprocess
import sys
import time

import pytest

from node_cli.runs.report.grouping import COSTS

pytestmark = pytest.mark.slow


def listed(result):
    """The lines under the table."""
    return result.out.rpartition("\n\n")[2].splitlines()


def test_real_runs_are_read(trained, typed):
    result = typed("--by", "model", "--show", "epochs")
    assert [line.lower().split() for line in result.out.splitlines()[1:3]] == [["mlp", "2", "2"], ["odenet", "1", "2"]]
    assert listed(result) == ["3 runs: 3 finished"]
    assert typed("outputs/ode").out.splitlines()[0].split() == ["runs", "test/error", *COSTS]


def test_the_figures_are_those_of_the_summary(trained, typed):
    summary = json.loads((trained / "ode" / "summary.json").read_text())
    columns = [
        "test/error",
        "parameters",
        "nfe/forward",
        "seconds.training",
        "memory.peak_mb",
        "details.per_class.9.recall",
    ]
    result = typed("outputs/ode", "--format", "csv", "--show", *columns)
    header, row = (line.split(",") for line in result.out.splitlines())
    shown = dict(zip(header, row, strict=True))
    own = {
        "test/error": summary["metrics"]["test/error"],
        "parameters": summary["parameters"],
        "nfe/forward": summary["nfe"]["nfe/forward"],
        "seconds.training": summary["seconds"]["training"],
        "memory.peak_mb": summary["memory"]["peak_mb"],
        "details.per_class.9.recall": summary["details"]["per_class"]["9"]["recall"],
    }
    assert {name: float(shown[f"{name} mean"]) for name in own} == pytest.approx(own)


def test_a_run_is_found_once(make, typed, tmp_path):
    make("a/1", {"test/error": 0.1})
    make("a/1/inside", {"test/error": 0.4})
    (tmp_path / "outputs" / "again").symlink_to(tmp_path / "outputs" / "a")
    result = typed("outputs", "outputs/a", "outputs/a/1", "./outputs", "--by", "folder", "--show", "test/error")
    assert [line.split()[0] for line in result.out.splitlines()[1:3]] == ["outputs/a/1", "outputs/a/1/inside"]
    assert listed(result) == ["2 runs: 2 finished"]


def test_the_choices_name_the_groups_and_classes_do_where_there_are_none(make, typed):
    make("new", {"test/error": 0.1}, choices={"model": "odenet", "solver": "dopri5"})
    make("old", {"test/error": 0.1})
    result = typed("--by", "model", "solver", "--show", "test/error")
    assert [line.split()[:2] for line in result.out.splitlines()[1:3]] == [["OdeNet", "Adaptive"], ["odenet", "dopri5"]]


def test_unfinished_runs_say_how_far_they_are(trained, typed):
    (trained / "ode" / "summary.json").unlink()
    metrics = trained / "ode" / "metrics.jsonl"
    validated = [json.loads(line) for line in metrics.read_text().splitlines()][1]
    line = json.dumps(validated | {"time": time.time() - 180})
    metrics.write_text(f"{line}\n" + '{"step": 99, "epoch": 77, "ti')
    assert listed(typed())[1:] == [
        f"unfinished: outputs/ode: epoch 1 of 2, step {validated['step']}, written 3 min ago"
    ]
    metrics.unlink()
    assert listed(typed())[1:] == ["unfinished: outputs/ode: nothing written yet"]


def test_unfinished_runs_are_filtered_by_their_config(trained, typed):
    for name in ("ode", "mlp_1"):
        (trained / name / "summary.json").unlink()
    assert "outputs/mlp_1" not in typed("--where", "solver.rtol=1e-3", "seed!=1").out
    assert "outputs/ode" in typed("--where", "test/error<0").out  # it may still get there


def test_unfinished_runs_are_known_by_their_choices(trained, typed):
    (trained / "ode" / "summary.json").unlink()
    (trained / "ode" / ".hydra" / "choices.yaml").write_text("{model: mine, solver: dopri5}")
    assert "outputs/ode" in typed("--where", "model=mine").out
    assert "outputs/ode" not in typed("--where", "model!=mine").out


def test_only_the_end_of_long_metrics_is_read(trained, typed):
    (trained / "ode" / "summary.json").unlink()
    line = json.dumps({"step": 1, "time": time.time(), "train/loss": "nan", "x" * 1000: 0})
    last = json.dumps({"step": 7, "epoch": 2, "time": time.time() - 60})
    (trained / "ode" / "metrics.jsonl").write_text(f"{line}\n" * 1000 + f"{last}\n")
    assert listed(typed())[1:] == ["unfinished: outputs/ode: epoch 2 of 2, step 7, written 60 s ago"]


def test_failed_runs_are_listed_with_their_reason_and_not_averaged(make, typed):
    make("1", {"test/error": 0.1})
    folder = make("2", {})
    content = {"status": "failed", "reason": "the loss\nis nan", "config": {"seed": 1}, "choices": {"model": "odenet"}}
    (folder / "summary.json").write_text(json.dumps(content))
    result = typed("--show", "test/error")
    assert (
        result.out
        == "runs  test/error\n   1      0.1000\n\n2 runs: 1 finished, 1 failed\nfailed: outputs/2: the loss is nan\n"
    )
    assert "failed: outputs/2" in typed("--where", "status=failed", "model=odenet").out


DAMAGED = {
    "": "summary.json is no JSON: Expecting value: line 1 column 1 (char 0)",
    '{"status": "finished", "metr': "summary.json is no JSON: Unterminated string",
    "[" * 100000: "summary.json is no JSON: maximum recursion depth exceeded",
    "[1, 2]": "summary.json: expected an object, got a list",
    "null": "summary.json: expected an object, got a NoneType",
    '{"metrics": {}}': "summary.json: status must be finished, failed or pruned, got None",
    '{"status": ["finished"]}': "summary.json: status must be finished, failed or pruned, got ['finished']",
    '{"status": "finished"}': "summary.json: finished, but without metrics",
    '{"status": "finished", "metrics": [1]}': "summary.json: metrics must be an object, got a list",
    '{"status": "finished", "metrics": {}, "config": "x"}': "summary.json: config must be an object, got a str",
    '{"status": "finished", "metrics": {"test/error": "low"}}': "summary.json: test/error must be a number, got 'low'",
}


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_runs_are_listed_and_not_averaged(content, make, typed):
    make("1", {"test/error": 0.1})
    (make("2", {}) / "summary.json").write_text(content)
    result = typed("--show", "test/error", "--where", "solver.rtol=0.001")
    assert result.out.splitlines()[1] == "   1      0.1000"
    assert listed(result)[0] == "2 runs: 1 finished, 1 damaged"
    assert listed(result)[1].startswith(f"damaged: outputs/2: {DAMAGED[content]}")


def test_unreadable_runs_are_damaged(make, typed, tmp_path):
    make("1", {"test/error": 0.1})
    for name, what in (("folder", os.mkdir), ("loop", lambda path: os.symlink("summary.json", path))):
        (tmp_path / "outputs" / name).mkdir()
        what(tmp_path / "outputs" / name / "summary.json")
    (make("bytes", {}) / "summary.json").write_bytes(b"\xff\xfe{")
    lines = listed(typed())
    assert lines[0] == "4 runs: 1 finished, 3 damaged"
    assert "damaged: outputs/folder: summary.json cannot be read: Is a directory" in lines
    assert "damaged: outputs/loop: summary.json cannot be read: it is a link" in lines
    assert any(line.startswith("damaged: outputs/bytes: summary.json is no JSON") for line in lines)


def test_a_damaged_config_leaves_the_run_in_the_list(trained, typed):
    (trained / "ode" / "summary.json").unlink()
    (trained / "ode" / ".hydra" / "config.yaml").write_text("a: [")
    assert listed(typed())[1].startswith("unfinished: outputs/ode: epoch 2, step ")


def test_of_many_the_first_ten_are_listed(make, typed):
    for index in range(13):
        (make(str(index), {}) / "summary.json").write_text("{")
    lines = listed(typed())
    assert [line.split(": ")[1] for line in lines[1:]] == [*(f"outputs/{i}" for i in range(10)), "and 3 more"]
    assert lines[1].startswith("damaged: outputs/0: summary.json is no JSON")
    assert lines[2] == "damaged: outputs/1: the same as outputs/0"


def test_each_summary_is_opened_once_and_no_yaml_is_read_where_it_has_the_config(trained, tmp_path):
    code = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from node_cli.cli.report import main
sys.argv = ["node-report", "outputs", "--where", "trainer.epochs=2", "--by", "model"]
main()
print(sorted(name for name in opened if "/outputs/" in f"/{name}"), file=sys.stderr)
print([name for name in ("torch", "numpy", "matplotlib", "hydra.core") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[0] == str([f"outputs/{name}/summary.json" for name in ("mlp_1", "mlp_2", "ode")])
    assert not {"torch", "numpy", "matplotlib"} & set(
        done.stderr.splitlines()[1].strip("[]").replace("'", "").split(", ")
    )
