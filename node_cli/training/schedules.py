"""The learning rate over a run, as a share of its peak: functions of how far the run is, without state of their own.

`learning_rate.py` says what becomes of it where a run is continued with more epochs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Maps the share of the run that is done, 0 to 1, to the share of the peak learning rate."""

    def __call__(self, done: float) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Constant:
    """The peak throughout."""

    def __call__(self, done: float) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """Multiplied by `factor` at each of the `milestones`, shares of the run in (0, 1)."""

    milestones: list[float]
    factor: float

    def __post_init__(self) -> None:
        if not all(0 < m < 1 for m in self.milestones) or sorted(self.milestones) != self.milestones:
            raise ValueError(f"milestones must rise and lie between 0 and 1, got {self.milestones}")
        if not self.factor > 0:
            raise ValueError(f"factor must be positive, got {self.factor}")

    def __call__(self, done: float) -> float:
        return self.factor ** sum(done >= milestone for milestone in self.milestones)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """A linear rise from 0 over the share `warmup`, then half a cosine down to `final` (Loshchilov and Hutter 2017)."""

    warmup: float
    final: float

    def __post_init__(self) -> None:
        _require_share(warmup=self.warmup, final=self.final)

    def __call__(self, done: float) -> float:
        if done < self.warmup:
            return done / self.warmup
        return _half_cosine(1.0, self.final, (done - self.warmup) / (1 - self.warmup))


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Half a cosine up from `initial` over the share `warmup`, then half a cosine down to `final` (Smith 2018)."""

    warmup: float
    initial: float
    final: float

    def __post_init__(self) -> None:
        _require_share(warmup=self.warmup, initial=self.initial, final=self.final)

    def __call__(self, done: float) -> float:
        if done < self.warmup:
            return _half_cosine(self.initial, 1.0, done / self.warmup)
        return _half_cosine(1.0, self.final, (done - self.warmup) / (1 - self.warmup))


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def _require_share(**shares: float) -> None:
    for key, value in shares.items():
        if not 0 <= value < 1:
            raise ValueError(f"{key} must be 0 or more and below 1, got {value}")
