"""Running the commands in this process, as if typed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_cli.cli import audit as audit_command
from node_cli.cli import eval as eval_command
from node_cli.cli import report as report_command
from node_cli.cli import train as train_command

MAINS = {
    "node-train": train_command.main,
    "node-eval": eval_command.main,
    "node-audit": audit_command.main,
    "node-report": report_command.main,
}


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Result]:
    """`typed("node-train", "model.width=3")` in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", list(words))
        status = 0
        try:
            MAINS[words[0]]()
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run
