"""The kinetic energy of the ODE blocks of a model, beside any loss: what is slow is solved in fewer evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from node_cli.ode.block import solving_modules
from node_cli.ode.checks import require_at_least
from node_cli.tasks.task import Loss


@dataclass(frozen=True)
class Kinetic:
    """Adds `weight` times the squared slope of all ODE blocks to a mean loss: see `SolvingModule.energies`.

    Source: Finlay et al., *How to Train Your Neural ODE*, ICML 2020.

    Raises:
        ValueError: `weight` is negative.
    """

    weight: float

    def __post_init__(self) -> None:
        require_at_least("kinetic", self.weight, 0)

    def check(self, model: nn.Module) -> None:
        """Raises ValueError for a solver whose tolerances are for the channels of the state alone."""
        lists = [isinstance(vars(module.solver).get("atol"), list) for module in solving_modules(model)]
        if self.weight and any(lists):
            raise ValueError("task.kinetic needs one solver.atol for all channels: set it to a number")

    def unused(self, model: nn.Module) -> Mapping[str, str]:
        """See `Task.unused`."""
        blocks = solving_modules(model)
        return {} if blocks else {"task.kinetic": "on a model without ODE blocks: take another model"}

    @contextmanager
    def of_solves(self, model: nn.Module) -> Iterator[list[Tensor]]:
        """Within it, the energies of all solves are found and added to the list."""
        energies: list[Tensor] = []
        blocks = solving_modules(model) if self.weight else []
        for block in blocks:
            block.energies = energies
        try:
            yield energies
        finally:
            for block in blocks:
                block.energies = None

    def beside(self, loss: Loss, energies: list[Tensor]) -> Loss:
        """The loss with the energies of its solves."""
        if not energies:
            return loss
        energy = sum((each.mean() for each in energies), loss.total.new_zeros(()))
        total = loss.total + self.weight * energy * loss.weight
        return Loss(total, loss.weight, {**loss.metrics, "kinetic": energy.detach() * loss.weight})
