"""What the last digits of a result depend on besides the config: versions, machine, random state."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

log = logging.getLogger(__name__)


def environment(device: torch.device, num_processes: int) -> dict[str, str]:
    """Versions and machine, in words."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "torch": str(torch.__version__),
        "num_threads": str(torch.get_num_threads()),
        "device": name,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "processes": str(num_processes),
    }


def name_changes(was: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Logs in one line what has changed."""
    changed = [f"{key} was {was[key]} and is {now[key]}" for key in was.keys() & now.keys() if was[key] != now[key]]
    if changed:
        log.warning("%s: results may differ in the last digits from here on", ", ".join(sorted(changed)))


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of the generators that a model draws from."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restores `random_state`; the state of a GPU only on a GPU."""
    torch.set_rng_state(state["cpu"].cpu())
    if state["cuda"] and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"][0].cpu(), device)
