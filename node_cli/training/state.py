"""How far a run is, and how it can end before its time."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from node_cli.config import ConfigError

SAMPLES, WEIGHT = "samples", "weight"  # among the sums of an epoch


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step, why, and what to do."""


class ContinuationError(ConfigError):
    """A run cannot go on from its checkpoint in the way that is asked for; the message says what to do."""


class BadStepError(RuntimeError):
    """A loss or gradient that must not reach the weights; they were not changed."""


@dataclass
class TrainState:
    """How far a run is. Everything in it is a plain value, so that it goes into a checkpoint as it stands."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    step: int = 0  # batches so far, one update each but for those that were skipped
    num_skipped: int = 0  # batches whose solve failed, and that were passed by
    num_fallbacks: int = 0  # batches whose solve failed, and that were solved once more by the fallback
    num_bad: int = 0  # batches whose loss or gradient was not finite, or a spike, and that were passed by
    usual_loss: float | None = None  # moving average of the loss, which a spike is held against
    sums: dict[str, float] = field(default_factory=dict)  # of the current epoch: see `add`
    step_sizes: dict[str, list[float]] = field(default_factory=dict)  # of the current epoch, by ODE block
    best: list[float] = field(default_factory=list)  # rank of the best validation
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # values of each finished epoch, by tag
    recorded: int = 0  # the last step that loggers were given
    seconds: float = 0.0  # spent on updates, over all sessions of the run

    @property
    def num_failed(self) -> int:
        """Batches that something was wrong with, whatever became of them."""
        return self.num_skipped + self.num_fallbacks + self.num_bad

    def copied(self) -> dict[str, Any]:
        """All of it, for a checkpoint. What is in the history does not change, and becomes long: it is not copied."""
        return deepcopy(vars(self) | {"history": []}) | {"history": list(self.history)}

    def add(self, means: Mapping[str, float], weight: float, costs: Mapping[str, float], samples: int) -> None:
        """Counts a batch among those of its epoch: `means` over its `weight`, and `costs`, which count by `samples`."""
        weights = dict.fromkeys(means, weight) | dict.fromkeys(costs, samples)
        for tag, value in {**means, **costs}.items():
            self.sums[tag] = self.sums.get(tag, 0.0) + value * weights[tag]
        # A checkpoint of an earlier version has samples alone: they were the weight.
        self.sums[WEIGHT] = self.sums.get(WEIGHT, self.sums.get(SAMPLES, 0.0)) + weight
        self.sums[SAMPLES] = self.sums.get(SAMPLES, 0.0) + samples

    def close_epoch(self, values: Mapping[str, float]) -> None:
        """Puts the means over the epoch, and `values`, into the history, and begins the next one."""
        samples = self.sums.pop(SAMPLES, 0.0)  # none if every batch was skipped: then there are no sums either
        weight = self.sums.pop(WEIGHT, samples)
        means = {tag: total / (weight if tag.startswith("train/") else samples) for tag, total in self.sums.items()}
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}
        self.history.append({"epoch": self.epoch, "step": self.step, **means, **values})
