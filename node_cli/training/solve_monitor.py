"""Collects what the ODE solves of a model cost, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from torch import nn

from node_cli.models.ode_block import SolveRecord, ode_blocks
from node_cli.ode.solution import SolveStats


class SolveMonitor:
    """Makes every ODE block of `model` record its solves from now on; `take` returns those since the last `take`."""

    def __init__(self, model: nn.Module) -> None:
        self._blocks = ode_blocks(model)
        for block in self._blocks.values():
            block.solves = []

    @property
    def has_blocks(self) -> bool:
        """Whether there is anything to record."""
        return bool(self._blocks)

    def take(self, num_passes: int = 1) -> SolveCosts:
        """The solves since the last call, made in so many forward passes, and those of `backward()` once it has run."""
        solves = {name: block.solves or [] for name, block in self._blocks.items()}
        for block in self._blocks.values():
            block.solves = []
        return SolveCosts(solves, num_passes)


class SolveCosts:
    """What the solves of some forward passes cost, block by block and in all.

    Counts are those of one pass: summed over its solves, a mean over passes. Of the accepted steps of all forward
    solves, `step_min` is the smallest, `step_mean` the mean, `step_first` the mean of those that a solve began with.
    """

    def __init__(self, solves: dict[str, list[SolveRecord]], num_passes: int = 1) -> None:
        self._solves = {name: records for name, records in solves.items() if records}
        self._num_passes = num_passes

    @property
    def step_sizes(self) -> dict[str, list[float]]:
        """Every accepted step of the forward solves of each block, in units of t."""
        return {
            name: list(chain.from_iterable(forward.step_sizes for forward, _ in records))
            for name, records in self._solves.items()
        }

    def scalars(self) -> dict[str, float]:
        """The costs by their tags; each block apart too, under its name, where there is more than one."""
        scalars = self._of(list(chain(*self._solves.values())))
        if len(self._solves) > 1:
            for name, records in self._solves.items():
                scalars |= {f"{tag}/{name}": value for tag, value in self._of(records).items()}
        return scalars

    def _of(self, records: Sequence[SolveRecord]) -> dict[str, float]:
        if not records:
            return {}
        forward, backward = zip(*records, strict=True)
        values = {
            "nfe/forward": self._count(forward, "nfe"),
            "nfe/backward": self._count(backward, "nfe"),
            "solver/accepted": self._count(forward, "num_accepted"),
            "solver/rejected": self._count(forward, "num_rejected"),
        }
        if any(stats.num_accepted for stats in backward):
            values["solver/backward_accepted"] = self._count(backward, "num_accepted")
            values["solver/backward_rejected"] = self._count(backward, "num_rejected")
        steps = [stats.step_sizes for stats in forward if stats.step_sizes]
        if steps:
            values["solver/step_min"] = min(map(min, steps))
            values["solver/step_mean"] = _mean(chain(*steps))
            values["solver/step_first"] = _mean(sizes[0] for sizes in steps)
        return values

    def _count(self, solves: Sequence[SolveStats], name: str) -> float:
        return sum(float(vars(stats)[name]) for stats in solves) / self._num_passes


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
