"""A short version of benchmarks/torture.py, and what it would notice."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def compare():
    sys.path.insert(0, str(FOLDER))
    from torture_runs import differences, finish

    yield differences, finish
    sys.path.remove(str(FOLDER))


def test_a_short_torture_loses_nothing():
    command = [sys.executable, str(FOLDER / "torture.py"), "--kills", "2", "--damages", "1", "--starts", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    counts = {name: int(count) for count, name in (line.split(None, 1) for line in done.stdout.splitlines()[:-1])}
    assert counts["kills"] == 2
    assert counts["damaged checkpoints"] == 1
    assert counts["starts of two commands at once"] == 1
    assert counts["commands of two processes that were killed"] == 1
    assert (counts["loaded silently"], counts["lost"]) == (0, 0)


def test_what_differs_is_noticed(compare, tmp_path):
    differences, finish = compare
    whole, run = tmp_path / "whole", tmp_path / "run"
    status, said = finish(["model=mlp", "model.width=4", "trainer.epochs=1"], whole)
    assert status == 0, said
    shutil.copytree(whole, run)
    assert differences(run, whole) == []
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join([*lines, lines[-1]]))
    assert differences(run, whole) == ["metrics.jsonl has a step twice", "metrics.jsonl"]
    metrics.write_text("\n".join(lines[1:]))
    assert differences(run, whole) == ["metrics.jsonl"]
    metrics.write_text("\n".join(lines))
    shutil.copy(run / "checkpoints" / "step-00000018.pt", run / "checkpoints" / "last.pt")
    assert differences(run, whole) == ["last.pt"]
    shutil.copy(whole / "checkpoints" / "last.pt", run / "checkpoints" / "last.pt")
    summary = json.loads((run / "summary.json").read_text())
    summary["metrics"]["test/loss"] += 1e-9
    (run / "summary.json").write_text(json.dumps(summary))
    assert differences(run, whole) == ["summary.json"]
    next(run.glob("events.*")).unlink()
    assert "TensorBoard's scalars" in differences(run, whole)
