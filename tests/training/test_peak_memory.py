"""The peak memory of a run, and not of what the process did before."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forked import Command
from small_runs import Recorder, build_trainer

from node_cli.training import memory
from node_cli.training.checkpoint import Checkpoints
from node_cli.training.memory import peak_memory_mb

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
LARGE = 200  # MB


def use_much() -> None:
    bytearray(b"x") * (LARGE << 20)


@pytest.mark.skipif(not memory.CLEAR_REFS.exists(), reason="this system cannot reset the peak of a process")
@pytest.mark.parametrize("check", ["what_was_used_before_a_run_is_not_counted", "what_a_run_uses_is_counted"])
def test_a_run_is_told_its_own_memory(check: str, begin: Callable[..., Command], tmp_path: Path):
    # In a process of its own: what a long one has freed and kept hides what is asked for next.
    process = begin(tmp_path, "test_peak_memory", check)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")


def main() -> None:
    globals()[sys.argv[1]](Path.cwd())


def what_was_used_before_a_run_is_not_counted(tmp_path: Path):
    use_much()
    before = peak_memory_mb(CPU)
    build_trainer().fit(Recorder(), Checkpoints(tmp_path, keep=1))
    assert peak_memory_mb(CPU) < before - LARGE / 2


def what_a_run_uses_is_counted(tmp_path: Path):
    peaks = []

    def audit(epoch: int, progress: float) -> dict[str, float]:
        peaks.append(peak_memory_mb(CPU))
        use_much()
        return {}

    build_trainer(audit=audit, epochs=1).fit(Recorder(), Checkpoints(tmp_path, keep=1))
    assert peak_memory_mb(CPU) > peaks[0] + LARGE / 2


def test_elsewhere_it_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "nothing")
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "nowhere" / "nothing")
    monkeypatch.setattr(memory.sys, "platform", "linux")
    build_trainer(epochs=1).fit(Recorder(), Checkpoints(tmp_path, keep=1))
    assert peak_memory_mb(CPU) == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
