"""Who takes part: a solver in one of its modes, and what a case asks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Step = Callable[[int], Any]  # is told the round
Outcome = tuple[Any, dict[str, Any]]  # the solution, and gradients by name; tensors or arrays


@dataclass(frozen=True)
class Mode:
    """A solver and how it is used."""

    solver: str
    gradient: str
    compile: str = "none"
    first_step: str = "chosen"
    network: str = "ours"
    precision: str = "float32"
    solver_keys: str = ""  # that differ from the heading's

    @property
    def name(self) -> str:
        """What stands in a table, and what `--only` looks at."""
        shown = [self.solver, self.gradient]
        shown += [f"compile={self.compile}"] if self.compile != "none" else []
        shown += ["carried"] if self.first_step == "carried" else []
        shown += [f"{self.network} network"] if self.network != "ours" else []
        shown += [self.precision] if self.precision != "float32" else []
        shown += [self.solver_keys] if self.solver_keys else []
        return ", ".join(shown)


@dataclass(frozen=True)
class Bare:
    """What a contender cannot avoid, with nothing around it: evaluations of its vector field, and the other layers.

    By names that contenders with the same network share. `forward` and `both` make `EVALUATIONS` of them; `both` goes
    backward too.
    """

    EVALUATIONS = 8

    name: str
    forward: Step
    both: Step
    others: Step

    def steps(self) -> dict[str, Step]:
        """To be timed in turn."""
        return {f"{self.name}, {kind}": getattr(self, kind) for kind in ("forward", "both", "others")}


@dataclass(frozen=True)
class Contender:
    """`step(n)` is a training step, loss and backward, on batch n; `count(n)` makes one and returns its evaluations.

    `outcome` is that of batch 0.
    """

    step: Step
    outcome: Callable[[], Outcome]
    count: Callable[[int], tuple[int, int]]
    bare: Bare | None = None


Entry = tuple[Mode, Callable[[], Contender]]  # built when it is needed: jax takes seconds to import


@dataclass(frozen=True)
class Case:
    """A problem on which all are timed in turn.

    `entries(batch)` are all who can take part here, `reference(batch)` is the float64 outcome of batch 0, and
    `peers[gradient]` the mode that a row of this gradient is held against, `peer` in short.
    """

    title: str
    threads: int
    batch: int
    tolerance: float | None
    unit: str
    entries: Callable[[int], Iterable[Entry]]
    reference: Callable[[int], tuple[Tensor, dict[str, Tensor]]]
    peers: Mapping[str, Mode]
    peer: str
    device: str = "cpu"
