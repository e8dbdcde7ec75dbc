"""Running the commands in this process, as if typed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for problems.py and parts.py, from every folder of tests


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def typed_in() -> Callable[..., None]:
    """`typed_in(folder, "node-train", "model.width=3")`, for fixtures that several tests share."""

    def run(folder: Path, program: str, *words: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(sys, "argv", [program, *words])
            import_module(f"node_cli.cli.{program.removeprefix('node-')}").main()

    return run


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Result]:
    """`typed("node-train", "model.width=3")` in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(program: str, *words: str) -> Result:
        monkeypatch.setattr(sys, "argv", [program, *words])
        status = 0
        try:
            import_module(f"node_cli.cli.{program.removeprefix('node-')}").main()
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run
