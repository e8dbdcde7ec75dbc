"""A run that an earlier version left is still continued and evaluated."""

import json
import shutil
from pathlib import Path

import pytest

KEPT = Path(__file__).with_name("kept_run")  # of format 2: ten updates of a net of 58 parameters on two moons


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(KEPT, tmp_path / "run"))


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_is_continued(typed, run):
    with (run / ".hydra" / "overrides.yaml").open("a") as overrides:
        overrides.write("- trainer.pictures_every_epochs=1\n")  # as figures_every_epochs was called
    result = typed("node-train", f"resume={run}", "trainer.epochs=3")
    assert (result.status, result.err) == (0, "")
    assert f"continuing from {run}/checkpoints/last.pt at step 10 of 15" in result.out
    before, after = lines(KEPT), lines(run)
    assert after[: len(before) - 1] == before[:-1]  # all but the test's, which comes after the last update
    assert max(line["step"] for line in after) == 16
    assert json.loads((run / "summary.json").read_text())["steps"] == 15


def test_it_is_evaluated(typed, run):
    result = typed("node-eval", f"run={run}", "checkpoint=last")
    assert (result.status, result.err) == (0, "")
    assert f"{lines(KEPT)[-1]['test/loss']:.4f}" in result.out


def test_it_does_not_start_from_other_weights(typed, run):
    result = typed("node-train", f"resume={run}", "trainer.epochs=3", "init_from=elsewhere")
    assert (result.status, result.out) == (2, "")
    assert result.err == f"node-train: init_from has no effect on {run}, which is continued: leave it out\n"
