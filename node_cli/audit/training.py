"""The audit of a run's own gradient between its epochs, as curves; the run itself goes on as without it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import nn

from node_cli.advice import in_keys
from node_cli.audit.backward_pass import BackwardPass
from node_cli.audit.base import Case
from node_cli.audit.comparison import difference
from node_cli.batch import Batch
from node_cli.datasets.dataset import Dataset
from node_cli.models.ode_block import ode_blocks
from node_cli.ode.checks import require, require_at_least
from node_cli.ode.solution import SolveError
from node_cli.tasks.task import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingAudit:
    """Compares the gradient that `model` trains with against a float64 solve at `reference_rtol`.

    Raises:
        ValueError: a setting out of range, or a model without ODE blocks that should be audited.
    """

    model: nn.Module
    task: Task
    dataset: Dataset
    seed: int
    precision: str
    every_n_epochs: int
    batch_size: int
    reference_rtol: float

    def __post_init__(self) -> None:
        require(self.every_n_epochs >= 0, "every_n_epochs must be 0 or more", self.every_n_epochs)
        require_at_least("batch_size", self.batch_size, 1)
        require(0 < self.reference_rtol < 1, "reference_rtol must be between 0 and 1", self.reference_rtol)
        if self.every_n_epochs:
            rule = f"every_n_epochs must be 0 with a model that has no ODE block, as {type(self.model).__name__}"
            require(bool(ode_blocks(self.model)), rule, self.every_n_epochs)
            with torch.random.fork_rng(self._devices()):
                self._passes(progress=0.0).check_float64()

    def __call__(self, epoch: int, progress: float) -> dict[str, float]:
        """The errors after this epoch, at `progress` of the run, by tag; none out of turn, or where a solve failed."""
        if not self.every_n_epochs or epoch % self.every_n_epochs:
            return {}
        try:
            with torch.random.fork_rng(self._devices()):
                return self._errors(self._passes(progress))
        except SolveError as error:
            log.warning("epoch %d: no audit: %s", epoch, in_keys(error))
            return {}

    def _errors(self, passes: BackwardPass) -> dict[str, float]:
        block = next(iter(ode_blocks(self.model).values()))
        case = Case("own", "own", block.solver, block.gradient, rtol=None)
        made, reference = passes.of(case), passes.of_the_ode(self.reference_rtol)[0]
        against_ode = difference(made.parameters, reference.parameters)
        errors = {"audit/cosine": against_ode.cosine, "audit/relative_error": against_ode.relative_error}
        if case.solver.differentiable:
            exact, _ = passes.exact(case.solver)
            errors["audit/pass_relative_error"] = difference(made.parameters, exact.parameters).relative_error
        drift = passes.reconstruction(case, num_times=2)
        return errors | {"audit/reconstruction": max((distances[0] for distances in drift.values()), default=0.0)}

    def _batch(self) -> Batch:
        return next(self.dataset.train_batches(self.batch_size, self.seed, epoch=0))

    def _passes(self, progress: float) -> BackwardPass:
        return BackwardPass(self.model, self.task, self._batch(), self.precision, progress)

    def _devices(self) -> list[torch.device]:
        """Those with random states of their own."""
        device = next(self.model.parameters()).device
        return [device] if device.type == "cuda" else []
