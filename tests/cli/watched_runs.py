"""What the tests of signals and launchers share: waiting for a run in another process, and reading it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from node_cli.training.checkpoint import read_checkpoint


def wait_for(is_so, process):
    give_up = time.monotonic() + 600
    while not is_so():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up, "it never came"
        time.sleep(0.02)


def is_begun(run: Path) -> Callable[[], bool]:
    """Whether a run has made thirty steps."""
    return lambda: number_of_lines(run / "metrics.jsonl") >= 30


def number_of_lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def last_step(run: Path) -> int:
    return read_checkpoint(run / "checkpoints" / "last.pt")["state"]["step"]


def assert_ended(err: str, grid: Path, at_work: list[int], not_begun: list[int]) -> None:
    """A sweep was ended by SIGTERM: what was at work has saved its step, and the rest was not begun."""
    begins, _, again = err.splitlines()[-1].partition("; to go on: ")
    assert begins.startswith("node-train: stopped by SIGTERM")
    assert again.replace("--config-dir mine ", "") == "node-train -m sweep.resume=outputs/sweeps/grid"
    for number in at_work:
        lines = [json.loads(line) for line in (grid / str(number) / "metrics.jsonl").read_text().splitlines()]
        assert last_step(grid / str(number)) == max(line["step"] for line in lines)
    assert not any((grid / str(number) / ".hydra").exists() for number in not_begun)
