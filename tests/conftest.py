"""Running the commands in this process, as if typed."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from forked import Command, module_of
from hurried import no_sync, one_drawing
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource

from node_cli.config import config_dir
from node_cli.training.stopping import HANDLED, Stopping

# The compiler would compile and load a program for each instruction set that the CPU says it has: ten seconds.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
OURS = {"HYDRA_FULL_ERROR", "PYTHONSAFEPATH"} - set(os.environ)  # what a command sets, and nobody before the tests


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first, so that no process has one of them left alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    """What is there when a file begins stays to the end: the garbage collector need not look at it time and again."""
    freeze()


@pytest.fixture(autouse=True)
def _imported_is_frozen() -> Iterator[None]:
    """Nor at what a command has imported, where several follow in one file."""
    before = len(sys.modules)
    yield
    if len(sys.modules) > before + 50:
        freeze()


@pytest.fixture(scope="session", autouse=True)
def _shipped_files_are_parsed_once() -> Iterator[None]:
    """Hydra would parse our YAML files and its own, which stay as they are, for every command typed in this process."""
    Plugins.instance()  # registers the kinds of sources
    with pytest.MonkeyPatch.context() as patch:
        for scheme in ("file", "pkg"):
            source = SourcesRegistry.instance().resolve(scheme)
            patch.setattr(source, "load_config", _once(source.load_config))
        yield


def _once(load: Callable[..., ConfigResult]) -> Callable[..., ConfigResult]:
    parsed: dict[tuple[str, str], bytes] = {}

    def load_once(self: ConfigSource, config_path: str) -> ConfigResult:
        if self.path not in (config_dir(), "hydra.conf"):
            return load(self, config_path=config_path)
        name = (self.provider, config_path)
        if name not in parsed:
            parsed[name] = pickle.dumps(load(self, config_path=config_path))
        found: ConfigResult = pickle.loads(parsed[name])
        return found

    return load_once


def freeze() -> None:
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
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
            no_sync(patch)
            one_drawing(patch)
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(sys, "argv", [program, *words])
            import_module(module_of(program)).main()

    return run


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Result]:
    """`typed("node-train", "model.width=3")` in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    no_sync(monkeypatch)
    one_drawing(monkeypatch)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(program: str, *words: str) -> Result:
        monkeypatch.setattr(sys, "argv", [program, *words])
        status = 0
        try:
            import_module(module_of(program)).main()
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture(scope="module")
def begin() -> Iterator[Callable[..., Command]]:
    """`begin(folder, "node-train", "model.width=3")` begins a process of its own; at the end none is left."""
    begun: list[Command] = []

    def begin(folder: Path, program: str, *words: str, forking: bool = True) -> Command:
        begun.append(Command(folder, program, *words, forking=forking))
        return begun[-1]

    yield begin
    for command in begun:
        command.kill_all()


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
