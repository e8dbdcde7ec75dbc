"""Peak memory of a call in this process."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MIB = 2**20
# Each tensor mapped on its own: the heap of glibc keeps holes of a size that it cannot fill, two MiB a step.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}
PROCESS = Path("/proc/self")
IS_MEASURED = sys.platform.startswith("linux")


def gpu_peak_of(run: Callable[[], Any], num_first: int) -> int:
    """Bytes that torch reserves on the GPU for it, and for what it keeps, once it has run so often before."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    for _ in range(num_first):
        run()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_reserved() - before


def peak_of(run: Callable[[], Any]) -> int | None:
    """Bytes above what the process holds before; None but on Linux, where a peak can be reset."""
    if not IS_MEASURED:
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (PROCESS / "clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
