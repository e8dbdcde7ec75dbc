"""The keys that every dataset of series has: how it is split, cut and scaled."""

from __future__ import annotations

import math
from dataclasses import dataclass

from node_cli.ode.checks import require, require_at_least, require_choice, require_positive

SPLITS = ("time", "series")


@dataclass(frozen=True)
class SeriesKeys:
    """How series become three splits of samples.

    Args:
        split: `time`: the last times of every series are test, and those before them val. `series`: whole series are.
        val: how many times (split=time) or series (split=series) are for validation; below 1 the fraction of them.
        test: how many are for test, likewise; None: the series that the source has for it.
        split_seed: fixes which series go into which split, and which times are dropped.
        window: times of a sample; None: a series is one.
        stride: times between the starts of two windows.
        context: the first times of a window, or of a whole series of val or test, that the model sees.
        log: the logarithm of the values is learned.
        normalize: values, controls and statics are scaled to mean 0 and std 1, measured on train.
        time_scale: the time that becomes 1; None: that in which scaled values change by about 1.
        drop: the fraction of the times of each series that no model sees, see `dropping`.

    Raises:
        ValueError: a key is out of range, or has no effect.
    """

    split: str
    val: int | float
    test: int | float | None
    split_seed: int
    window: int | None
    stride: int
    context: int
    log: bool
    normalize: bool
    time_scale: int | float | None
    drop: float

    def __post_init__(self) -> None:
        require_choice("split", self.split, SPLITS)
        for name, number in (("val", self.val), ("test", self.test)):
            is_number = number is None or (number >= 0 and (number < 1 or float(number).is_integer()))
            require(is_number, f"{name} must be a whole number, or a fraction below 1", number)
        require(0 <= self.split_seed < 2**63, "split_seed must be 0 or more", self.split_seed)
        require_at_least("stride", self.stride, 1)
        require_at_least("context", self.context, 1)
        require(0 <= self.drop < 1, "drop must be 0 or more and below 1", self.drop)
        require_positive(time_scale=self.time_scale)
        require(self.time_scale is None or math.isfinite(self.time_scale), "time_scale must be finite", self.time_scale)
        if self.window is not None and self.window <= self.context:
            raise ValueError(
                f"window must be more than dataset.context={self.context}, or nothing is left to forecast, "
                f"got {self.window}"
            )


def count_of(key: str, number: int | float | None, available: int, unit: str) -> int:
    """How many of `available` a key asks for, a fraction below 1 being rounded to the nearest number, halves up.

    Raises:
        ValueError: the fraction gives none, or the source was to have series of its own for it (None).
    """
    if number is None:
        raise ValueError(
            f"dataset.{key} must be a whole number, or a fraction below 1, got null: the dataset has no test series of "
            "its own, or dataset.split=time divides each series"
        )
    count = int(number) if number >= 1 or number == 0 else int(available * number + 0.5)
    if number and not count:
        raise ValueError(f"dataset.{key}={number} of {available} {unit} is none: give more, or a whole number")
    return count
