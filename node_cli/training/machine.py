"""What a run is computed on: device, threads, precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from node_cli.config import ConfigError
from node_cli.training import launched

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


def dtype_of(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype of data and weights; None: they stay as they are, with bfloat16 too.

    Raises:
        ConfigError: the device has no float64.
    """
    if precision != "float64":
        return None
    if device.type == "mps":
        raise ConfigError("precision=float64 is not available on device=mps: take device=cpu, or precision=float32")
    return torch.float64


def set_num_threads(number: int | None) -> None:
    """Sets the number of CPU threads; None: torch's choice, whatever ran in this process before."""
    torch.set_num_threads(number or CHOICE_OF_TORCH)


def place_of(config: Mapping[str, Any]) -> tuple[torch.device, torch.dtype | None]:
    """The device, and the dtype of floating-point tensors where it is not that of torch."""
    device = chosen_device(config["device"])
    return device, dtype_of(config["precision"], device)
