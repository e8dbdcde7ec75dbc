"""How far a run is, and how it can end before its time."""

from __future__ import annotations

from dataclasses import dataclass, field


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step, why, and what to do."""


@dataclass
class TrainState:
    """How far a run is. Everything in it is a plain value, so that it goes into a checkpoint as it stands."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the current epoch
    step: int = 0  # batches so far, one update each but for those that were skipped
    num_skipped: int = 0  # batches whose solve failed, and that were passed by
    num_fallbacks: int = 0  # batches whose solve failed, and that were solved once more by the fallback
    sums: dict[str, float] = field(default_factory=dict)  # of the current epoch: each figure x samples, and samples
    step_sizes: dict[str, list[float]] = field(default_factory=dict)  # of the current epoch, by ODE block
    best: list[float] = field(default_factory=list)  # rank of the best validation
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # figures of each finished epoch
    seconds: float = 0.0  # spent on updates, over all sessions of the run

    @property
    def num_failed(self) -> int:
        """Batches whose solve failed, whatever became of them."""
        return self.num_skipped + self.num_fallbacks
