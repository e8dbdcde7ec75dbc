"""The ranges of a trainer's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node_cli.training.state import ContinuationError, TrainState

ONE_OR_MORE = (
    *("epochs", "passes_per_epoch", "max_steps", "batch_size", "eval_batch_size", "patience"),
    *("log_every_steps", "save_every_steps", "devices"),
)
ZERO_OR_MORE = ("max_skipped", "histograms_every_epochs", "pictures_every_epochs", "max_restarts")
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


def require_no_more_done(state: TrainState, epochs: int | None, max_steps: int | None, steps_per_epoch: int) -> None:
    """Raises ContinuationError where a run is asked to end before the point that it has come to."""
    if max_steps is not None and state.step > max_steps:
        raise ContinuationError(f"trainer.max_steps={max_steps} is too few: {state.step} steps are done")
    if epochs is not None and state.step > epochs * steps_per_epoch:
        done = state.epoch + (state.batch > 0)
        raise ContinuationError(
            f"trainer.epochs={epochs} is too few: the run is in epoch {done}, at step {state.step}"
            if state.batch
            else f"trainer.epochs={epochs} is too few: {done} epochs are done"
        )
