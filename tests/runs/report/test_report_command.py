"""What is refused and how, files that are written, and --watch."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from node_cli.runs.report.formats import FORMATS
from node_cli.runs.report.options import EXAMPLES

pytestmark = pytest.mark.slow

NODE_REPORT = [sys.executable, "-m", "node_cli.cli.report"]
MISTAKES = {
    "nowhere elsewhere": "no such folder: nowhere, elsewhere",
    "empty": "no runs in empty: a run has a summary.json or a .hydra/config.yaml",
    "--where outputs": "--where outputs: write KEY=VALUE (or != < <= > >=); folders come before the options",
    "--where solver.rtol<low": "--where solver.rtol<low: < compares with a number, got 'low'",
    "--where solver.rtl=1": "--where solver.rtl: no run has it; did you mean solver.rtol?",
    "--where solver.method=euler": "--where solver.method=euler: no run has this value; there are dopri5",
    "--by model outputs": "--by outputs: this is a folder; folders come before the options",
    "--by model.widht": "--by model.widht: no run has it; did you mean model.width?",
    "--show test/eror": "--show test/eror: no run has it; did you mean test/error?",
    "--show error": "--show error: no run has it; did you mean test/error?",
    "--show zzz": "--show zzz: no run has it; see summary.json of a run for what there is",
    "--sort -test/loss": "--sort test/loss: no run has it; did you mean test/error?",
    "--sort": "argument --sort: expected one argument",
    "--out empty": "empty cannot be written: Is a directory",
    "--out nowhere/table": "nowhere/table cannot be written: No such file or directory",
    "--out table.pdf": "--out table.pdf: a table ends in .txt, .md, .csv, .tex: figures are --plot nfe.pdf",
    "--out table.xlsx": "--out table.xlsx: a table ends in .txt, .md, .csv, .tex",
    "--out t.md --format csv": "--out t.md: this ending means --format markdown, not csv",
    "--plot nfe.bmp": "argument --plot: got 'nfe.bmp', must be one of curves, nfe, seconds, memory, horizon; "
    "with .pdf or .svg for another file",
    "--plot lines": "argument --plot: got 'lines', must be one of curves, nfe, seconds, memory, horizon; "
    "with .pdf or .svg for another file",
    "--plot curves": "--plot curves: no run has train/loss, val/loss, val/error, nfe/forward in its metrics.jsonl",
    "--plot nfe": "--plot nfe: no group of runs has both nfe/forward and test/error",
    "--plot memory": "--plot memory: no group of runs has both nfe/forward and memory.peak_mb",
    "--plot nfe --where status=failed": "--plot: no run has finished",
    "--watch 0": "--watch must be a positive number of seconds, got 0",
    "--nonsense": "unrecognized arguments: --nonsense",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing(words, make, typed, tmp_path):
    make("1", {"test/error": 0.1})
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = typed(*words.split())
    assert (result.status, result.out, result.err) == (2, "", f"node-report: {MISTAKES[words]}\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_format_is_refused_with_those_there_are(typed):
    result = typed("--format", "pdf")
    assert result.status == 2
    assert result.err.startswith("node-report: argument --format: invalid choice: 'pdf' (choose from ")
    assert all(name in result.err for name in FORMATS)


def test_a_figure_that_cannot_be_written(trained, typed, tmp_path):
    (tmp_path / "file").write_text("")
    result = typed("--plot", "seconds", "--out-dir", "file")
    assert (result.status, result.err) == (2, "node-report: file cannot be made: File exists\n")


@pytest.mark.parametrize(
    ("out", "name"),
    [("table.md", "markdown"), ("T.TEX", "latex"), ("v1.0/table.csv", "csv"), ("table.txt", "terminal")],
)
def test_the_table_goes_to_a_file_whose_ending_says_the_format(out, name, make, typed, tmp_path):
    make("1", {"test/error": 0.1})
    (tmp_path / "v1.0").mkdir()
    shown = typed("--format", name).out
    for words in (["--out", out], ["--out", out, "--format", name], ["--out", "v1.0/bare", "--format", name]):
        result = typed(*words)
        assert (result.status, result.out) == (0, f"{words[1]}\n")
        assert (tmp_path / words[1]).read_text() == shown


def test_help_and_version(typed):
    result = typed("--help")
    assert result.status == 0
    assert EXAMPLES in result.out
    assert typed("--version").out.startswith("node-report 0.")


def test_figures_are_png_or_what_their_ending_says(trained, typed):
    plots = ["curves", "nfe", "seconds.svg", "memory.pdf", "nfe.pdf"]
    result = typed("--by", "model", "--plot", *plots)
    paths = [trained / f"report_{name}" for name in ("curves.png", "nfe.png", *plots[2:])]
    png, svg, pdf = b"\x89PNG\r\n\x1a\n", b"<?xml ve", b"%PDF-1.4"
    assert [path.read_bytes()[:8] for path in paths] == [png, png, svg, pdf, pdf]
    assert result.err.splitlines() == [f"outputs/{path.name}" for path in paths]
    before = [path.read_bytes() for path in paths]
    typed("--by", "model", "--plot", *plots)
    assert [path.read_bytes() for path in paths] == before


def test_a_reader_that_has_seen_enough(make, tmp_path):
    for index in range(200):
        make(str(index), {"test/error": 0.1}, {"solver.method": "x" * 1000 + str(index)})
    done = subprocess.run(
        f"{' '.join(NODE_REPORT)} | head -1", shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith("solver.method")


@pytest.fixture
def watching(trained, tmp_path):
    """`node-report --watch` in a process of its own, begun while one run is unfinished."""
    summary = (trained / "ode" / "summary.json").read_bytes()
    (trained / "ode" / "summary.json").unlink()
    process = subprocess.Popen(
        [*NODE_REPORT, "--watch", "0.1", "--by", "model"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = threading.Timer(600, process.kill)
    limit.start()
    yield process, trained / "ode", summary
    limit.cancel()
    process.kill()
    process.communicate()


def read_until(process, words):
    """The lines up to one that holds the words."""
    lines = []
    while not lines or words not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], f"ended without {words!r}: {lines} {process.stderr.read()}"
    return lines


def test_watch_follows_a_run_to_its_end(watching):
    process, folder, summary = watching
    read_until(process, "unfinished: outputs/ode: epoch 2 of 2")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 98765, "time": time.time()}) + "\n")
    lines = read_until(process, "step 98765, written")
    assert any("3 runs: 2 finished, 1 unfinished" in line for line in lines)
    (folder / "summary.json.part").write_bytes(summary)
    os.replace(folder / "summary.json.part", folder / "summary.json")
    rest, errors = process.communicate(timeout=600)
    assert (process.returncode, errors) == (0, "")
    assert rest.endswith("\n3 runs: 3 finished\n")


def test_watch_ends_quietly_at_ctrl_c(watching):
    process, _, _ = watching
    read_until(process, "unfinished: outputs/ode")
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=600)
    assert (process.returncode, rest, errors) == (130, "", "")


def test_watch_waits_for_what_only_a_finished_run_has(make, typed, tmp_path, monkeypatch):
    folder = make("1", {"test/error": 0.1}, seconds={"training": 1.0})
    summary = (folder / "summary.json").read_bytes()
    (folder / "summary.json").unlink()
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("seed: 1")
    monkeypatch.setattr(time, "sleep", lambda seconds: (folder / "summary.json").write_bytes(summary))
    result = typed("--watch", "0.1", "--where", "test/error<1", "--plot", "seconds", "--out-dir", "figures")
    assert result.status == 0
    assert "1 run: 1 unfinished\nunfinished: outputs/1: nothing written yet\n" in result.out
    assert os.listdir(tmp_path / "figures") == ["report_seconds.png"]


def test_watch_ends_at_once_where_all_is_done(make, typed):
    make("1", {"test/error": 0.1})
    result = typed("--watch")
    assert result.status == 0
    assert result.out.endswith("1 run: 1 finished\n")
