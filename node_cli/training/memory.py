"""How much memory a run uses, and what to say when there is none left."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from node_cli.training.state import TrainingError

# Linux: "5" written to the one sets the highest resident size, VmHWM in the other, back to the present one (proc(5)).
CLEAR_REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
NO_MEMORY = "can't allocate memory"  # torch's allocator for CPUs has no exception of its own


def reset_peak_memory(device: torch.device) -> None:
    """Restarts the measurement of `peak_memory_mb`, where the system can: CUDA and Linux."""
    gc.collect()  # what an earlier run of this process left in cycles
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        CLEAR_REFS.write_text("5")


def peak_memory_mb(device: torch.device) -> float:
    """The most memory in use at once: of the device, or, on a CPU, of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with suppress(OSError, StopIteration):
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@contextmanager
def reporting_out_of_memory(where: str, advice: str) -> Iterator[None]:
    """Turns a failed allocation into a TrainingError: where, how much was asked for, and what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or NO_MEMORY in str(error)
        if not is_memory:
            raise
        asked = str(error).partition(NO_MEMORY)[2].strip(": ").splitlines() or str(error).splitlines()
        detail = f" ({asked[0].strip()})" if asked else ""
        raise TrainingError(f"{where}: out of memory{detail}. {advice}") from error
