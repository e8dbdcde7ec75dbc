"""The ranges of a trainer's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node_cli.ode.checks import require, require_choice
from node_cli.training.state import ContinuationError, TrainState

ONE_OR_MORE = (
    *("epochs", "updates_per_epoch", "max_steps", "batch_size", "eval_batch_size", "patience"),
    *("log_every_steps", "save_every_steps", "devices"),
)
ZERO_OR_MORE = ("max_skipped", "histograms_every_epochs", "figures_every_epochs", "max_restarts")
ON_BAD_STEP = ("raise", "skip_batch")


def require_in_range(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for a setting that cannot be."""
    if settings["epochs"] is None and settings["max_steps"] is None:
        raise ValueError("epochs and max_steps are both null: set one of them")
    given = {key: value for key, value in settings.items() if value is not None}
    for key in ONE_OR_MORE:
        require(given.get(key, 1) >= 1, f"{key} must be at least 1", given.get(key))
    for key in ZERO_OR_MORE:
        require(given[key] >= 0, f"{key} must be 0 or more", given[key])
    keep, factor, decay = given["keep"], given.get("spike_factor", 2), given.get("average_decay", 0.5)
    require(keep >= 2, "keep must be at least 2, so that one is left if the newest is damaged", keep)
    for key in ("clip_norm", "max_seconds"):
        require(given.get(key, 1) > 0, f"{key} must be positive or null", given.get(key))
    require(factor > 1, "spike_factor must be more than 1 or null", factor)
    require(0 < decay < 1, "average_decay must be between 0 and 1 or null", decay)
    require_choice("on_bad_step", given["on_bad_step"], ON_BAD_STEP)


def require_no_more_done(state: TrainState, epochs: int | None, max_steps: int | None, steps_per_epoch: int) -> None:
    """Raises ContinuationError where a run is asked to end before the point that it has come to."""
    if max_steps is not None and state.step > max_steps:
        raise ContinuationError(f"trainer.max_steps={max_steps} is too few: {state.step} steps are done")
    if epochs is not None and state.step > epochs * steps_per_epoch:
        done = f"{state.epoch} epochs are done"
        if state.batch:
            done = f"the run is in epoch {state.epoch + 1}, at step {state.step}"
        raise ContinuationError(f"trainer.epochs={epochs} is too few: {done}")
