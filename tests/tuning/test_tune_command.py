"""`node-tune` as a user runs it: worker processes, a kill, two commands at once, and what is left at the end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from small_studies import QUICK, start, summary, wait_for

STUDY = Path("outputs/studies/default")
WORDS = [*QUICK, "tune.trials=4", "tune.pruner=none"]


@pytest.mark.slow
def test_a_study_killed_midway_goes_on_with_two_commands_and_two_workers(typed, tmp_path):
    """Killed while its second trial trains; then two commands share what is left, one of them with two workers."""
    killed = start(tmp_path, *WORDS)
    wait_for(tmp_path / STUDY / "trials" / "1" / ".hydra" / "config.yaml")
    os.kill(killed.pid, signal.SIGKILL)  # its worker ends with it
    killed.communicate(timeout=60)
    done = summary(STUDY, 0)
    other = start(tmp_path, *WORDS, "tune.workers=2")
    texts = [typed("node-tune", *WORDS).out, other.communicate(timeout=120)[0]]
    assert any("4 runs: 4 finished" in text for text in texts), texts
    assert sorted(path.name for path in (STUDY / "trials").iterdir()) == ["0", "1", "2", "3"]
    summaries = [summary(STUDY, number) for number in range(4)]
    assert summaries[0] == done
    assert [each["status"] for each in summaries] == ["finished"] * 4
    assert len({each["config"]["optimizer"]["lr"] for each in summaries}) == 4
    for name in ("history", "importance", "parallel"):
        assert (STUDY / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    trained = typed("node-train", "--config-dir", str(STUDY), "experiment=best", "logger=jsonl", "run_dir=best")
    assert trained.status == 0
    best = min(summaries, key=lambda each: each["metrics"]["val/error"])
    assert json.loads(Path("best/summary.json").read_text())["metrics"] == best["metrics"]
