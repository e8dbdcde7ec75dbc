"""What a run is computed on, and what the last digits of a result depend on besides its config."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from node_cli.config import ConfigError
from node_cli.training import launched

log = logging.getLogger(__name__)

CHOICE_OF_TORCH = torch.get_num_threads()


def chosen_device(name: str) -> torch.device:
    """The device that a config names; `auto` is the fastest there is. Several processes have a GPU each.

    Raises:
        ConfigError: this machine has no such device, or too few.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        there = ", ".join(device for device, is_there in available.items() if is_there)
        raise ConfigError(f"device={name} is not available: this machine has {there}")
    if name != "cuda" or not launched.is_one_of_several():
        return torch.device(name)
    wanted, there_are = launched.local_count(), torch.cuda.device_count()
    if wanted > there_are:
        raise ConfigError(f"trainer.devices={wanted} is more than the {there_are} GPUs of this machine")
    torch.cuda.set_device(launched.local_rank())
    return torch.device(name, launched.local_rank())


def set_num_threads(number: int | None) -> None:
    """Sets the number of CPU threads; None: torch's choice, whatever ran in this process before."""
    torch.set_num_threads(number or CHOICE_OF_TORCH)


def place_of(config: Mapping[str, Any]) -> tuple[torch.device, torch.dtype | None]:
    """The device, and the dtype of data and weights; None: they stay as they are, with bfloat16 too.

    Raises:
        ConfigError: this machine has no such device, or the device no float64.
    """
    device = chosen_device(config["device"])
    if config["precision"] != "float64":
        return device, None
    if device.type == "mps":
        raise ConfigError("precision=float64 is not available on device=mps: take device=cpu, or precision=float32")
    return device, torch.float64


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
