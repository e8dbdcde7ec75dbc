"""Timing in turn, medians with their spread, errors, and the machine that they hold for."""

from __future__ import annotations

import gc
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor

import node_cli
from benchmarks.engine.contender import Step
from benchmarks.engine.peers import is_installed

WARMUP_ROUNDS = 6
LEAST_SECONDS, MOST_REPEATS = 0.02, 50  # of one timing: a short step is made often in a row, and its mean counts
SLOW_SECONDS, SLOW_ROUNDS = 5.0, 2  # what takes longer takes part in so many rounds only
COMPILING_ROUNDS = 5  # in which something may be compiled: for a batch after another, and for a second solve


def in_turn(
    steps: Mapping[str, Step], rounds: int, *, wait: Callable[[], None] = lambda: None
) -> dict[str, np.ndarray]:
    """Seconds of each step in each round (A B C A B C), after rounds that do not count.

    `wait` returns when the device is idle.
    """

    def timed(step: Step, n: int, repeats: int) -> float:
        gc.collect()  # nobody pays for what another one has left behind
        wait()
        started = time.perf_counter()
        for i in range(repeats):
            step(n + i)
        wait()
        return (time.perf_counter() - started) / repeats

    quickest: dict[str, float] = dict.fromkeys(steps, math.inf)
    for n in range(WARMUP_ROUNDS):
        for name, step in steps.items():
            if n < COMPILING_ROUNDS or quickest[name] < SLOW_SECONDS:
                quickest[name] = min(quickest[name], timed(step, n, 1))
    repeats = {name: min(MOST_REPEATS, math.ceil(LEAST_SECONDS / quickest[name])) for name in steps}
    gc.freeze()  # or collecting takes longer than most steps
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for n in range(rounds):
        for name, step in steps.items():
            if n < SLOW_ROUNDS or quickest[name] < SLOW_SECONDS:
                seconds[name].append(timed(step, n, repeats[name]))
    gc.unfreeze()
    return {name: np.array(values) for name, values in seconds.items()}


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and quartiles."""
    quartiles = np.percentile(np.array(list(values), dtype=float), [25, 50, 75])
    return dict(zip(("q1", "median", "q3"), quartiles.tolist(), strict=True))


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Of all entries together, in float64."""
    exact = exact.double()
    return ((found.to(exact) - exact).norm() / exact.norm()).item()


def gradient_errors(found: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> dict[str, Any]:
    """Of all parameters together, and of the worst one alone."""
    assert found.keys() == exact.keys(), found.keys() ^ exact.keys()
    alone = {name: relative_error(found[name], exact[name]) for name in exact}
    together = (
        torch.cat([grads[name].to(exact[name].double()).flatten() for name in exact]) for grads in (found, exact)
    )
    worst = max(alone, key=lambda name: alone[name])
    return {"gradient_error": relative_error(*together), "worst_error": alone[worst], "worst_parameter": worst}


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures hold for."""
    packages = ("torch", "torchdiffeq", "torchode", "diffrax", "equinox", "jax")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": _processor(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),  # bfloat16 is fast from AVX512 with BF16 on
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "node_cli": node_cli.__version__,
        **{name: metadata.version(name) if is_installed(name) else "not installed" for name in packages},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def seconds(values: Mapping[str, float], unit: str = "s") -> str:
    """`0.234 (0.230 to 0.241)`: median and quartiles."""
    scale = {"s": 1.0, "ms": 1e3}[unit]
    median, low, high = (f"{scale * values[key]:.3g}" for key in ("median", "q1", "q3"))
    return f"{median} ({low} to {high})"


def times(values: Mapping[str, float] | None) -> str:
    """`1.95x`; nothing where there is no peer."""
    return "" if values is None else f"{values['median']:.2f}x"


def percent(value: float) -> str:
    """Two digits: errors are no more certain."""
    return f"{100 * value:.2g} %"
