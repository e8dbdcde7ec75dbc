"""Runs for torture.py: what is trained, how it is killed, and how two runs are compared."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from node_cli.files import TEMPORARY
from node_cli.training.checkpoint import CheckpointError, read_checkpoint

COMMAND = [sys.executable, "-m", "node_cli.cli.train"]
EVERY = ["device=cpu", "num_threads=1", "trainer.log_every_steps=1", "trainer.save_every_steps=3", "resume=auto"]
ODENET = ["model=odenet", "model.width=8", "trainer.epochs=3"]
KINDS = {
    "rk4, direct, one cycle, crops": [*ODENET, "solver=rk4", "gradient=direct", "dataset.crop_padding=1"],
    "dopri5, adjoint, cosine, averaged": [
        *(*ODENET, "solver=dopri5", "solver.rtol=1e-2", "solver.atol=1e-2", "gradient=adjoint"),
        *("scheduler=cosine", "trainer.average_decay=0.9"),
    ],
    "bosh3, checkpoint, steps carried on, step": [
        *(*ODENET, "solver=bosh3", "solver.rtol=1e-2", "solver.atol=1e-2", "solver.first_step=carried"),
        *("gradient=checkpoint", "scheduler=step"),
    ],
    "mlp, bfloat16, early stopping": ["model=mlp", "precision=bfloat16", "trainer.epochs=12", "trainer.patience=3"],
}
Moment = tuple["subprocess.Popen[str]", bool]  # a process, and whether the moment came before its end
CLOCKS = ("time", "time/step_ms", "memory/peak_mb")


def begin(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """Starts `node-train` in a group of its own; what it says goes to a file beside the folder."""
    with folder.with_suffix(".out").open("a") as out:
        return subprocess.Popen(
            [*COMMAND, *EVERY, *words, f"run_dir={folder}"],
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=place_of(folder),
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def finish(words: list[str], folder: Path) -> tuple[int, str]:
    """Runs to the end: the exit status, and all that was said in this folder so far."""
    status = begin(words, folder).wait()
    return status, said_in(folder)


def place_of(folder: Path) -> Path:
    """The working folder of all processes of a run, by which they are known."""
    path = folder.with_suffix(".at")
    path.mkdir(exist_ok=True)
    return path


def said_in(folder: Path) -> str:
    """All that was said in this folder so far."""
    path = folder.with_suffix(".out")
    return path.read_text() if path.exists() else ""


def kill_once(words: list[str], folder: Path, rng: random.Random) -> str:
    """Starts the run, or goes on with it, and ends it at a random moment; which kind, or empty if it ended first."""
    moment = rng.choice(list(MOMENTS))
    process, came = MOMENTS[moment](words, folder, rng)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    status = process.wait()
    if status == 0:
        return ""
    return moment if status in (-signal.SIGKILL, 128 + signal.SIGTERM) and came else "another"


def _at_the_start(words: list[str], folder: Path, rng: random.Random) -> Moment:
    process = begin(words, folder)
    time.sleep(rng.uniform(0.5, 5))
    return process, True


def _within_a_step(words: list[str], folder: Path, rng: random.Random) -> Moment:
    process, size = begin(words, folder), _size(folder)
    came = until(process, lambda: _size(folder) > size)
    time.sleep(rng.uniform(0, 0.4))
    return process, came


def _while_it_saves(words: list[str], folder: Path, rng: random.Random) -> Moment:
    process, size = begin(words, folder), _size(folder)
    if not until(process, lambda: _size(folder) > size):
        return process, False
    time.sleep(rng.uniform(0, 0.2))
    return process, until(process, lambda: any((folder / "checkpoints").glob(f"{TEMPORARY}*")), pause=0)


def _between_epochs(words: list[str], folder: Path, rng: random.Random) -> Moment:
    """At the last step of one: it is evaluated, its histograms and its checkpoint are written."""
    process, epochs = begin(words, folder), _epochs(folder)
    came = until(process, lambda: _epochs(folder) > epochs)
    time.sleep(rng.uniform(0, 0.02))
    return process, came


def _within_a_validation(words: list[str], folder: Path, rng: random.Random) -> Moment:
    """Asked to stop at once after the last step of an epoch, gone on with, and killed as soon as that is recorded."""
    process, epochs = begin(words, folder), _epochs(folder)
    if not until(process, lambda: _epochs(folder) > epochs, pause=0):
        return process, False
    process.send_signal(signal.SIGTERM)
    if process.wait() == 0:
        return process, False
    size = _size(folder)
    process = begin(words, folder)
    return process, until(process, lambda: _size(folder) > size, pause=0)


def _by_signals(words: list[str], folder: Path, rng: random.Random) -> Moment:
    """Each asks it to stop; those that follow the first must change nothing."""
    process, came = _within_a_step(words, folder, rng)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(rng.uniform(0, 0.3))
    return process, came


MOMENTS = {
    "at the start": _at_the_start,
    "within a step": _within_a_step,
    "while it saves": _while_it_saves,
    "between epochs": _between_epochs,
    "within a validation": _within_a_validation,
    "by several signals": _by_signals,
}


def until(
    process: subprocess.Popen[str], is_so: Callable[[], bool], pause: float = 0.002, give_up_after: float = 20
) -> bool:
    """Waits for something in the run of a process; whether it came before its end."""
    give_up = time.monotonic() + give_up_after
    while process.poll() is None and time.monotonic() < give_up:
        if is_so():
            return True
        time.sleep(pause)
    return False


def _size(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def num_steps(folder: Path) -> int:
    """How many steps are recorded."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return sum('"train/loss"' in line for line in lines)


def _epochs(folder: Path) -> int:
    """How many steps have ended an epoch of 20."""
    return num_steps(folder) // 20


def differences(run: Path, whole: Path) -> list[str]:
    """What two finished runs differ in, clocks and memory apart: nothing, if both are the same to the last bit."""
    found = []
    ours, theirs = (records(folder) for folder in (run, whole))
    steps = [(line["step"], *sorted(line)) for line in ours]
    if len(set(steps)) < len(steps):
        found.append("metrics.jsonl has a step twice")
    if ours != theirs:
        found.append("metrics.jsonl")
    found += [name for name in ("last.pt", "best.pt") if _state(run, name) != _state(whole, name)]
    if scalars(run) != scalars(whole):
        found.append("TensorBoard's scalars")
    summaries = [json.loads((folder / "summary.json").read_text())["metrics"] for folder in (run, whole)]
    if summaries[0] != summaries[1]:
        found.append("summary.json")
    return found


def records(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, less clocks."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{tag: value for tag, value in line.items() if tag not in CLOCKS} for line in lines]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run, less clocks."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    tags = [tag for tag in accumulator.Tags()["scalars"] if tag not in CLOCKS]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def _state(folder: Path, name: str) -> Any:
    try:
        payload = read_checkpoint(folder / "checkpoints" / name)
    except CheckpointError as error:
        return str(error)
    trees = {key: payload[key] for key in ("model", "average", "best_weights", "optimizer", "processes")}
    return json.dumps(trees, default=_digits, sort_keys=True)


def _digits(tensor: torch.Tensor) -> list[Any]:
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist() if tensor.dim() else [tensor.item()]
