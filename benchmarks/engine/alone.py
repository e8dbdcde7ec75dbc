"""A contender in a process of its own: what the first calls cost, and the peak memory of a later one.

`python -m benchmarks.engine.alone <case> <batch> <mode>` prints them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine.cases import CASES
from benchmarks.engine.contender import Mode
from benchmarks.engine.measure import SLOW_SECONDS
from benchmarks.engine.peak import MALLOC, peak_of

NUM_FIRST = 3  # calls until all is compiled: a whole solve is not in the first one, which tells how many steps it has
CACHES = {"torch": "TORCHINDUCTOR_CACHE_DIR", "jax": "JAX_COMPILATION_CACHE_DIR"}


def environment(threads: int, cache: Path, device: str = "cpu") -> dict[str, str]:
    """What holds the libraries to so many threads, and their compilers to a cache of this run."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "NPROC": str(threads),  # XLA
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}",
        **{variable: str(cache / name) for name, variable in CACHES.items()},
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **({"JAX_PLATFORMS": "cpu"} if device == "cpu" else {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
    }


def measured(name: str, batch: int, mode: Mode) -> dict[str, Any]:
    """`peak_bytes`; of what is compiled, `compile_seconds`, and the same in a second process, from the cache."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.engine.alone", name, str(batch), mode.name]
        env = os.environ | environment(case.threads, Path(folder), case.device) | MALLOC
        first, *second = (_printed_by(command, env) for _ in range(1 if mode.compile == "none" else 2))
        # What is timed in turn afterwards is not compiled again.
        for cache in Path(folder).iterdir():
            shutil.copytree(cache, os.environ[CACHES[cache.name]], dirs_exist_ok=True)
    if not second:
        return {"peak_bytes": first["peak_bytes"]}
    return first | {"cached_compile_seconds": second[0]["compile_seconds"]}


def _printed_by(command: list[str], env: Mapping[str, str]) -> dict[str, Any]:
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def _main(name: str, batch: int, mode_name: str) -> None:
    case = CASES[name]
    torch.set_num_threads(case.threads)
    (build,) = (build for mode, build in case.entries(batch) if mode.name == mode_name)
    contender = build()

    def step() -> float:
        started = time.perf_counter()
        contender.step(0)
        return time.perf_counter() - started

    first = [step() for _ in range(NUM_FIRST)]
    later = step()
    if later < SLOW_SECONDS:
        later = min(later, step(), step())
    peak = peak_of(lambda: contender.step(0)) if case.device == "cpu" else None  # see `run.py`
    found = {"compile_seconds": sum(first) - NUM_FIRST * later, "peak_bytes": peak}
    sys.stdout.write(f"\n{json.dumps(found)}\n")


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
