"""A short version of benchmarks/torture.py, and what it would notice."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from forked import Command

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def torture():
    """The module of the script, whose commands begin as forks here."""
    sys.path.insert(0, str(FOLDER))
    import torture
    import torture_runs

    def begin(words: list[str], folder: Path) -> Command:
        out = folder.with_suffix(".out")
        words = [*torture_runs.EVERY, *words, f"run_dir={folder}"]
        return Command(torture_runs.place_of(folder), "node-train", *words, out=str(out), err=str(out))

    with pytest.MonkeyPatch.context() as patch:
        for module in (torture, torture_runs):
            patch.setattr(module, "begin", begin)
        for kind, words in torture_runs.KINDS.items():
            patch.setitem(torture_runs.KINDS, kind, [*words, "model.width=4", "trainer.epochs=2"])
        yield torture
    sys.path.remove(str(FOLDER))


def test_a_short_torture_loses_nothing(torture, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["torture.py", "--kills", "2", "--damages", "1", "--starts", "2"])
    with pytest.raises(SystemExit) as end:
        torture.main()
    out = capsys.readouterr().out
    assert end.value.code == 0, out
    counts = {name: int(count) for count, name in (line.split(None, 1) for line in out.splitlines()[:-1])}
    assert counts["kills"] == 2
    assert counts["damaged checkpoints"] == 1
    assert counts["starts of two commands at once"] == 1
    assert counts["commands of two processes that were killed"] == 1
    assert (counts["loaded silently"], counts["lost"]) == (0, 0)


def test_what_differs_is_noticed(torture, tmp_path):
    differences, finish = torture.differences, torture.finish
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
