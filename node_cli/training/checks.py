"""The ranges of a trainer's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ONE_OR_MORE = (
    *("epochs", "max_steps", "batch_size", "eval_batch_size", "patience"),
    *("log_every_steps", "save_every_steps", "devices"),
)
ZERO_OR_MORE = ("max_skipped", "histograms_every_epochs", "max_restarts")
ON_BAD_STEP = ("raise", "skip_batch")


def require_in_range(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for a setting that cannot be."""
    if settings["epochs"] is None and settings["max_steps"] is None:
        raise ValueError("epochs and max_steps are both null: set one of them")
    for key in (*ONE_OR_MORE, *ZERO_OR_MORE):
        least = int(key in ONE_OR_MORE)
        if settings[key] is not None and settings[key] < least:
            raise ValueError(f"{key} must be {'at least 1' if least else '0 or more'}, got {settings[key]}")
    if settings["keep"] < 2:
        raise ValueError(
            f"keep must be at least 2, so that one is left if the newest is damaged, got {settings['keep']}"
        )
    for key in ("clip_norm", "max_seconds"):
        if settings[key] is not None and not settings[key] > 0:
            raise ValueError(f"{key} must be positive or null, got {settings[key]}")
    factor, decay = settings["spike_factor"], settings["average_decay"]
    if factor is not None and not factor > 1:
        raise ValueError(f"spike_factor must be more than 1 or null, got {factor}")
    if decay is not None and not 0 < decay < 1:
        raise ValueError(f"average_decay must be between 0 and 1 or null, got {decay}")
    if settings["on_bad_step"] not in ON_BAD_STEP:
        raise ValueError(f"on_bad_step must be one of {', '.join(ON_BAD_STEP)}, got {settings['on_bad_step']}")
