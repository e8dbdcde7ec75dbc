"""Gathers what the ODE solves of a model cost, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TypeAlias

from torch import nn

from node_cli.models.ode_block import OdeBlock, ode_blocks
from node_cli.ode.solution import SolveStats

Solves: TypeAlias = list[tuple[SolveStats, SolveStats]]  # forward and backward figures of each


class SolveMonitor:
    """Watches every ODE block of `model` from now on; `take` returns the figures since the last `take`."""

    def __init__(self, model: nn.Module) -> None:
        self._solves: dict[str, Solves] = {}
        for name, block in ode_blocks(model).items():
            self._solves[name] = []
            block.register_forward_hook(self._recorder(name))

    def _recorder(self, name: str) -> Callable[[OdeBlock, object, object], None]:
        def record(block: OdeBlock, _args: object, _output: object) -> None:
            self._solves[name].append((block.stats, block.backward_stats))

        return record

    def take(self) -> SolveCosts:
        """The solves since the last call (backward figures included, once `backward()` has run)."""
        costs = SolveCosts({name: list(solves) for name, solves in self._solves.items()})
        for solves in self._solves.values():
            solves.clear()
        return costs


class SolveCosts:
    """What some solves cost, block by block and in all.

    Counts are means over solves, summed over blocks. Of the accepted steps of all forward solves, `step_min` is the
    smallest, `step_mean` the mean, and `step_first` the mean of those that a solve began with.
    """

    def __init__(self, solves: dict[str, Solves]) -> None:
        self._solves = {name: pairs for name, pairs in solves.items() if pairs}

    def __bool__(self) -> bool:
        return bool(self._solves)

    @property
    def nfe_forward(self) -> float:
        """Evaluations of the vector fields in a forward pass."""
        return sum(_mean(forward.nfe for forward, _ in pairs) for pairs in self._solves.values())

    @property
    def step_sizes(self) -> dict[str, list[float]]:
        """Every accepted step of the forward solves of each block, in units of t."""
        return {
            name: list(chain.from_iterable(forward.step_sizes for forward, _ in pairs))
            for name, pairs in self._solves.items()
        }

    def scalars(self) -> dict[str, float]:
        """The figures by their tags; each block apart too, under its name, where there is more than one."""
        scalars = _figures(list(self._solves.values()))
        if len(self._solves) > 1:
            for name, pairs in self._solves.items():
                scalars |= {f"{tag}/{name}": value for tag, value in _figures([pairs]).items()}
        return scalars


def _figures(blocks: Sequence[Solves]) -> dict[str, float]:
    if not blocks:
        return {}
    forward = [[pair[0] for pair in pairs] for pairs in blocks]
    backward = [[pair[1] for pair in pairs] for pairs in blocks]
    figures = {
        "nfe/forward": _count(forward, "nfe"),
        "nfe/backward": _count(backward, "nfe"),
        "solver/accepted": _count(forward, "num_accepted"),
        "solver/rejected": _count(forward, "num_rejected"),
    }
    if any(stats.num_accepted for stats in chain(*backward)):
        figures["solver/backward_accepted"] = _count(backward, "num_accepted")
        figures["solver/backward_rejected"] = _count(backward, "num_rejected")
    steps = [stats.step_sizes for stats in chain(*forward) if stats.step_sizes]
    if steps:
        figures["solver/step_min"] = min(map(min, steps))
        figures["solver/step_mean"] = _mean(chain(*steps))
        figures["solver/step_first"] = _mean(sizes[0] for sizes in steps)
    return figures


def _count(blocks: Sequence[Sequence[SolveStats]], name: str) -> float:
    return sum(_mean(vars(stats)[name] for stats in solves) for solves in blocks)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
