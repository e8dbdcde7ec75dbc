"""Running the commands in this process, as if typed."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from node_cli.training.stopping import HANDLED, Stopping

sys.path.insert(0, str(Path(__file__).parent))  # for problems.py and parts.py, from every folder of tests


TESTS = Path(__file__).parent
OURS = {"HYDRA_FULL_ERROR", "PYTHONSAFEPATH"} - set(os.environ)  # what a command sets, and nobody before the tests
SLOW = (  # files that start processes, compile, train a lot or try all there is, the longest ones first
    *("cli/test_devices.py", "ode/test_compilation.py", "cli/test_signals.py", "cli/test_sweep.py", "test_torture.py"),
    *(f"cli/test_{name}.py" for name in ("audit_command", "bad_files", "commands", "launchers", "small_disk")),
    *("training/test_continuation.py", "training/test_processes.py", "ode/gradients/test_exactness.py"),
    *(f"tuning/test_{name}.py" for name in ("tune_command", "tune_mistakes", "lost_machine", "study")),
    *("test_resume.py", "cli/test_damaged_checkpoints.py", "cli/test_table1.py", "ode/test_sync_steps.py"),
    *("test_figure3.py", "cli/test_failed_solves.py", "runs/report/test_report_command.py"),
    *(f"audit/test_{name}.py" for name in ("audit_in_training", "backward_pass_costs", "linear_audit")),
    *(f"audit/test_{name}.py" for name in ("resnet_euler_audit", "scalar_audit")),
    *("test_packaging.py", "loggers/test_hparams_of_sweeps.py", "loggers/test_long_run.py", "cli/test_fuzzed_words.py"),
    *("ode/gradients/test_adjoint.py", "ode/test_torchdiffeq_solver.py", "ode/test_agreement.py"),
    *("datasets/test_bombs.py", "datasets/test_fuzzed_files.py", "training/test_stopping.py"),
    "cli/test_streams.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-m "not slow"` leaves them out; in all tests they begin first, so that no process has one of them left alone."""
    places = {TESTS / name: place for place, name in enumerate(SLOW)}
    for item in items:
        if item.path in places:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: places.get(item.path, len(SLOW)))


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


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A run that was stopped leaves signals ignored, as its process is about to end."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    Stopping.missed, Stopping.got_on = None, False


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """A command sets variables for the processes that it starts, one of a fixture of a module too."""
    for name in OURS:
        os.environ.pop(name, None)
    with _environment():
        yield


@contextmanager
def _environment() -> Iterator[None]:
    try:
        yield
    finally:
        for name in OURS:
            os.environ.pop(name, None)


@pytest.fixture(scope="session")
def typed_in() -> Callable[..., None]:
    """`typed_in(folder, "node-train", "model.width=3")`, for fixtures that several tests share."""

    def run(folder: Path, program: str, *words: str) -> None:
        with _environment(), pytest.MonkeyPatch.context() as patch:
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


TOUCHY = """
_target_: touchy.Touchy
on_failure: raise
fallback_steps: 4
num_steps: 2
limit: 99.0
"""


@pytest.fixture
def command(typed: Callable[..., Result], tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """`command("node-train", "model.width=3")` in an empty working folder, with a solver that fails when told.

    Exit status, and all that was printed.
    """
    (tmp_path / "mine" / "solver").mkdir(parents=True)
    (tmp_path / "mine" / "solver" / "touchy.yaml").write_text(TOUCHY)
    common = ["--config-dir", "mine", "packages=[touchy]", "num_threads=1", "device=cpu"]

    def run(program: str, *words: str) -> tuple[int, str]:
        result = typed(program, *common, *words)
        return result.status, result.out + result.err

    return run
