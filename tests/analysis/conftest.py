"""Runs of the commands in this process, with a solver that fails where it is told to."""

import sys

import pytest

from node_cli.cli.eval import main as evaluate
from node_cli.cli.train import main as train

TOUCHY = """
_target_: touchy.Touchy
on_failure: raise
fallback_steps: 4
num_steps: 2
limit: 99.0
"""


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """`command("node-train", "model.width=3")` in an empty working folder: exit status and all that was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine" / "solver").mkdir(parents=True)
    (tmp_path / "mine" / "solver" / "touchy.yaml").write_text(TOUCHY)

    def run(program, *words):
        common = ["--config-dir", "mine", "packages=[touchy]", "num_threads=1", "device=cpu"]
        monkeypatch.setattr(sys, "argv", [program, *common, *words])
        status = 0
        try:
            {"node-train": train, "node-eval": evaluate}[program]()
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run
