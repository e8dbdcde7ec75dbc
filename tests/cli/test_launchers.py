"""Grids whose cells run in processes of their own by Hydra's joblib launcher; `test_signals.py` tries submitit's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

QUICK = ["model=mlp", "model.width=8", "trainer.epochs=1", "num_threads=1", "device=cpu", "logger=jsonl"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
LOST = """
import os
from torch import nn

class Lost(nn.Linear):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, after: int) -> None:
        super().__init__(64, num_outputs)
        if after:
            os._exit(9)

    def forward(self, inputs):
        return super().forward(inputs.flatten(1))
"""


def train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "node_cli.cli.train", "-m", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_cells_run_in_processes_of_their_own(tmp_path: Path):
    result = train(tmp_path, *JOBLIB, *QUICK, "trainer.batch_size=64,0", "sweep.name=grid")
    assert result.returncode == 1
    assert "node-train: 1 of 2 cells did not finish (1); to run them again: node-train -m sweep.res" in result.stderr
    grid = tmp_path / "outputs" / "sweeps" / "grid"
    finished, failed = (json.loads((grid / str(number) / "summary.json").read_text()) for number in range(2))
    assert (finished["status"], finished["environment"]["num_threads"]) == ("finished", 1)
    assert (failed["status"], failed["reason"]) == ("failed", "trainer.batch_size must be at least 1, got 0")
    assert "2 runs: 1 finished, 1 failed" in result.stdout


def test_a_lost_process_is_told_in_one_line(tmp_path: Path):
    (tmp_path / "mylab.py").write_text(LOST)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "lost.yaml").write_text("_target_: mylab.Lost\n_partial_: true\nafter: 0\n")
    words = ["packages=[mylab]", "model=lost", "model.after=0,1", *QUICK[2:], "sweep.name=grid"]
    result = train(tmp_path, "--config-dir", "mine", *JOBLIB, *words)
    assert result.returncode == 1
    assert "a process of the launcher was lost; " in result.stderr
    assert "Traceback" not in result.stderr
