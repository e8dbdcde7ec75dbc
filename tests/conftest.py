"""Running the commands in this process, as if typed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for problems.py and parts.py, from every folder of tests


TESTS = Path(__file__).parent
SLOW = (  # files that start processes, compile, train a lot or try all there is: `-m "not slow"` leaves them out
    *("test_packaging.py", "test_resume.py", "test_torture.py"),
    *("analysis/test_failed_solves.py", "analysis/test_figure3.py", "analysis/report/test_report_command.py"),
    *(f"analysis/audit/test_{name}.py" for name in ("audit_in_training", "backward_pass_costs", "linear_audit")),
    *(f"analysis/audit/test_{name}.py" for name in ("resnet_euler_audit", "scalar_audit")),
    *(f"cli/test_{name}.py" for name in ("audit_command", "bad_files", "commands", "damaged_checkpoints", "devices")),
    *(f"cli/test_{name}.py" for name in ("fuzzed_words", "launchers", "signals", "small_disk", "sweep", "table1")),
    *("datasets/test_bombs.py", "datasets/test_fuzzed_files.py"),
    *("ode/test_agreement.py", "ode/test_compilation.py", "ode/test_sync_steps.py", "ode/test_torchdiffeq_solver.py"),
    *("ode/gradients/test_adjoint.py", "ode/gradients/test_exactness.py"),
    *("training/test_continuation.py", "training/test_processes.py"),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(TESTS).as_posix() in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """What is there when a file begins stays to the end: the garbage collector need not look at it time and again."""
    gc.collect()
    gc.freeze()


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
