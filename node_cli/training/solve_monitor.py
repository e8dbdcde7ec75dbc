"""Gathers what the ODE solves of a model cost, block by block."""

from __future__ import annotations

from typing import Any

from torch import nn

from node_cli.models.ode_block import OdeBlock, ode_blocks
from node_cli.ode.solution import SolveStats


class SolveMonitor:
    """Watches every ODE block of `model` from now on; `take` returns the figures since the last `take`."""

    def __init__(self, model: nn.Module) -> None:
        self._solves: dict[str, list[tuple[SolveStats, SolveStats]]] = {}
        for name, block in ode_blocks(model).items():
            self._solves[name] = []
            block.register_forward_hook(self._recorder(name))

    def _recorder(self, name: str) -> Any:
        def record(block: OdeBlock, _args: Any, _output: Any) -> None:
            self._solves[name].append((block.stats, block.backward_stats))

        return record

    def take(self) -> SolveCosts:
        """The solves since the last call (backward figures included, once `backward()` has run)."""
        costs = SolveCosts({name: list(solves) for name, solves in self._solves.items()})
        for solves in self._solves.values():
            solves.clear()
        return costs


class SolveCosts:
    """What some solves cost; all figures are sums over blocks of means over solves."""

    def __init__(self, solves: dict[str, list[tuple[SolveStats, SolveStats]]]) -> None:
        self._solves = {name: pairs for name, pairs in solves.items() if pairs}

    def __bool__(self) -> bool:
        return bool(self._solves)

    @property
    def nfe_forward(self) -> float:
        """Evaluations of the vector fields in a forward pass."""
        return sum(_mean([forward.nfe for forward, _ in pairs]) for pairs in self._solves.values())

    @property
    def nfe_backward(self) -> float:
        """Evaluations of the vector fields in a backward pass, vector-Jacobian products included."""
        return sum(_mean([backward.nfe for _, backward in pairs]) for pairs in self._solves.values())

    @property
    def step_sizes(self) -> list[float]:
        """Every accepted step of the forward solves, in units of t."""
        return [step for pairs in self._solves.values() for forward, _ in pairs for step in forward.step_sizes]

    def scalars(self) -> dict[str, float]:
        """The figures by their tags; each block apart too, where there is more than one."""
        if not self:
            return {}
        scalars = {"nfe/forward": self.nfe_forward, "nfe/backward": self.nfe_backward}
        for counter in ("accepted", "rejected"):
            scalars[f"solver/{counter}"] = sum(
                _mean([vars(forward)[f"num_{counter}"] for forward, _ in pairs]) for pairs in self._solves.values()
            )
        if self.step_sizes:
            scalars["solver/step_min"] = min(self.step_sizes)
        if len(self._solves) > 1:
            for name, pairs in self._solves.items():
                scalars[f"nfe/forward/{name}"] = _mean([forward.nfe for forward, _ in pairs])
                scalars[f"nfe/backward/{name}"] = _mean([backward.nfe for _, backward in pairs])
        return scalars


def _mean(values: list[int]) -> float:
    return sum(values) / len(values)
