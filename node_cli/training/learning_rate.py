"""The learning rate of a run, and how it goes on where a run is continued with another length or another peak."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from node_cli.training.schedules import Schedule
from node_cli.training.state import ContinuationError

ON_RESUME = ("continue", "stretch", "restart", "constant")


@dataclass
class Plan:
    """Which part of a schedule the steps from `start` on follow: from its share `share` to its end at `total_steps`.

    `constant` are rates that stay instead, one for each of the `peaks`. Plain values, for a checkpoint.
    """

    total_steps: int
    peaks: list[float]
    start: int = 0
    share: float = 0.0
    constant: list[float] | None = None

    def share_at(self, step: int) -> float:
        """How much of the schedule is done at `step`."""
        if step >= self.total_steps:
            return 1.0
        return self.share + (1 - self.share) * ((step - self.start) / (self.total_steps - self.start))


@dataclass
class LearningRate:
    """Sets the rates of an optimizer to their peaks times a schedule.

    `on_resume` says how they go on where a run is continued with another number of steps: `continue` with what is left
    of the schedule, over the steps that are left, and so without a jump; `stretch` to the schedule of the longer run;
    `restart` it over the steps that are left; `constant`, as they are, or at a new peak.

    Raises:
        ValueError: `on_resume` is none of these.
    """

    schedule: Schedule
    optimizer: torch.optim.Optimizer
    total_steps: int
    on_resume: str
    change: str = field(default="", init=False)  # what a continuation did to the rate, in words

    def __post_init__(self) -> None:
        if self.on_resume not in ON_RESUME:
            raise ValueError(f"scheduler.on_resume must be one of {', '.join(ON_RESUME)}, got {self.on_resume}")
        self.plan = Plan(self.total_steps, self._rates())

    def set(self, step: int) -> None:
        """Gives the optimizer the rates of the update after `step` updates."""
        for group, rate in zip(self.optimizer.param_groups, self._rates_at(step), strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """What an exact continuation needs."""
        return dict(vars(self.plan))

    def load_state_dict(self, saved: Mapping[str, Any] | None, step: int) -> None:
        """Goes on after `step` updates; the optimizer has its rates of then. `saved` is None from earlier versions.

        Raises:
            ContinuationError: the peak has changed, or the length of the run is not known, and `on_resume` is
                `continue`.
        """
        was, new = self._rates(), self.plan
        old = self._guessed(was, step) if saved is None else Plan(**saved)
        if (old.total_steps, old.peaks) == (new.total_steps, new.peaks):
            self.plan = old
            return
        if self.on_resume == "continue" and old.peaks != new.peaks:
            changes = f"optimizer.lr: {_shown(old.peaks)} -> {_shown(new.peaks)}"
            raise ContinuationError(f"{changes}: say how the learning rate goes on, {_CHOICES}")
        if self.on_resume == "constant":
            new.constant = was if old.peaks == new.peaks else new.peaks
        elif self.on_resume == "restart":
            new.start = step
        elif self.on_resume == "continue":
            new.start, new.share, new.constant = step, old.share_at(step), old.constant
        if step < new.total_steps:
            self.change = self._told(was, step, has_ended=old.share_at(step) == 1)

    def _guessed(self, was: list[float], step: int) -> Plan:
        """The plan of a checkpoint that has none: that of now, if it gives the rates that the optimizer has."""
        expected = self._rates_at(step - 1)
        if step and not all(map(math.isclose, was, expected)):
            raise ContinuationError(
                f"the checkpoint is of an earlier version and does not say how long its run was to be, and its "
                f"learning rate is {_shown(was)} where this run has {_shown(expected)}: leave trainer.epochs, "
                "trainer.max_steps and optimizer.lr as they were"
            )
        return self.plan

    def _told(self, was: list[float], step: int, *, has_ended: bool) -> str:
        every = max(1, (self.total_steps - step) // 1000)
        now, *later = (self._rates_at(each) for each in range(step, self.total_steps, every))
        text = f"learning rate {_shown(was)} before, {_shown(now)} from here on"
        if max([now, *later]) > now:
            text += f", rising to {_shown(max(later))}"
        text += f" (scheduler.on_resume={self.on_resume})"
        if self.on_resume == "continue" and has_ended and now < self.plan.peaks:
            text += f"; its schedule has ended, for another one {_CHOICES}"
        return text

    def _rates_at(self, step: int) -> list[float]:
        if self.plan.constant is not None:
            return self.plan.constant
        share = self.schedule(self.plan.share_at(step))
        return [peak * share for peak in self.plan.peaks]

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]


_CHOICES = (
    "scheduler.on_resume=restart (the schedule once more), stretch (that of the longer run) or constant "
    "(with optimizer.lr=..., at that)"
)


def _shown(rates: list[float]) -> str:
    return ", ".join(f"{rate:.3g}" for rate in dict.fromkeys(rates))
