"""The paper's figure 3 by its one command, at the smallest size."""

import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
from forked import Command

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "figure3.py"
SMALL = ["trainer.max_steps=1", "model.width=4", "num_threads=1", "--rtols=1e-1,1e-3", "--out=picture.png"]
SMALL += ["dataset.test_fraction=0.05", "dataset.val_fraction=0.05"]


def forked_run(command: list[str], *, check: bool) -> subprocess.CompletedProcess:
    """The same command, without the seconds that its imports take."""
    python, option, module, *words = command
    assert (python, option, module, check) == (sys.executable, "-m", "node_cli.cli.train", False)
    return subprocess.CompletedProcess(command, Command(Path.cwd(), "node-train", *words).wait())


def test_its_numbers_behave_as_tolerances_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *SMALL])
    monkeypatch.setattr(subprocess, "run", forked_run)
    run_path(str(SCRIPT), run_name="__main__")
    out = capsys.readouterr().out
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("|")]
    (loose, tight), passes = ([float(cell) for cell in row] for row in rows[2:4]), rows[6:12]
    assert loose[1] < tight[1]  # evaluations
    assert tight[2] < loose[2] / 2  # off the ODE
    assert [row[0] for row in passes] == ["direct"] * 2 + ["checkpoint"] * 2 + ["adjoint"] * 2
    direct, checkpoint, adjoint = (
        [[float(cell) for cell in row[1:]] for row in passes[at : at + 2]] for at in (0, 2, 4)
    )
    assert [row[2] for row in direct] == [0, 0]
    assert all(row[2] > 0 for row in checkpoint + adjoint)
    assert direct[1][3] > 1.5 * direct[0][3]  # MiB
    assert adjoint[1][3] < 1.1 * adjoint[0][3]
    assert rows[-1][0] == "1"  # the step of the only record
