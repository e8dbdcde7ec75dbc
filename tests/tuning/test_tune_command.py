"""`node-tune` as a user runs it: worker processes, a kill, two commands at once, and what is left at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_studies import QUICK, summary

STUDY = Path("outputs/studies/default")
WORDS = [*QUICK, "tune.trials=6", "tune.pruner=none"]


def start(folder, *words):
    command = [sys.executable, "-m", "node_cli.cli.tune", *words]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


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
    assert any("6 runs: 6 finished" in text for text in texts), texts
    assert sorted(path.name for path in (STUDY / "trials").iterdir()) == ["0", "1", "2", "3", "4", "5"]
    summaries = [summary(STUDY, number) for number in range(6)]
    assert summaries[0] == done
    assert [each["status"] for each in summaries] == ["finished"] * 6
    assert len({each["config"]["optimizer"]["lr"] for each in summaries}) == 6
    for name in ("history", "importance", "parallel"):
        assert (STUDY / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    trained = typed("node-train", "--config-dir", str(STUDY), "experiment=best", "logger=jsonl", "run_dir=best")
    assert trained.status == 0
    best = min(summaries, key=lambda each: each["metrics"]["val/error"])
    assert json.loads(Path("best/summary.json").read_text())["metrics"] == best["metrics"]
