"""A trained network judged under several solvers: does it still stand for an ODE, or only for its solver's steps?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from node_cli.audit.stand_ins import SolvedBack
from node_cli.datasets.base import Dataset
from node_cli.models.ode_block import ode_blocks
from node_cli.ode.base import Solver
from node_cli.ode.solution import SolveError
from node_cli.tables import four_digits, with_names
from node_cli.tasks.base import Evaluation, Task
from node_cli.training.evaluation import autocast, evaluate
from node_cli.training.solve_monitor import SolveMonitor

STILL_THE_SAME = 0.01  # the first metric of the task's rank may move by so much: a fraction by that, others in relation


@dataclass(frozen=True)
class Judgement:
    """A network under one solver; `reconstruction` is None where the way back could not be solved."""

    name: str
    evaluation: Evaluation
    nfe: float
    agreement: float
    reconstruction: float | None

    @property
    def num_failed(self) -> int:
        """Samples that this solver could not solve."""
        return int(self.evaluation.metrics.get("failed", 0))


class SolverComparison:
    """Judges `model` on one split of `dataset`, first with its own solver, then with others."""

    def __init__(
        self, model: torch.nn.Module, task: Task, dataset: Dataset, split: str, batch_size: int, precision: str
    ) -> None:
        self._model = model
        self._task = task
        self._dataset = dataset
        self._split = split
        self._batch_size = batch_size
        self._precision = precision
        self._monitor = SolveMonitor(model)
        self.judgements: list[Judgement] = []

    def judge(self, name: str, solver: Solver | None = None) -> Judgement:
        """Judges under `solver` (None: the model's own); agreement is with the first judgement.

        Raises:
            SolveError: the forward solve failed; unless `on_failure` is `raise`, that of every sample alone.
        """
        for block in ode_blocks(self._model).values():
            block.solver = solver or block.solver
        batches = self._dataset.batches(self._split, self._batch_size)
        evaluation = evaluate(self._model, self._task, batches, self._precision)
        costs = self._monitor.take(self._dataset.num_batches(self._split, self._batch_size))
        first = self.judgements[0].evaluation if self.judgements else evaluation
        agreement = self._task.agreement(first, evaluation)
        judgement = Judgement(name, evaluation, costs.nfe_forward, agreement, self._reconstruction())
        self._monitor.take()
        self.judgements.append(judgement)
        return judgement

    def verdict(self) -> str:
        """One sentence on the last judgement beside the first."""
        own, other = self.judgements[0], self.judgements[-1]
        was, now = (self._task.rank(j.evaluation.metrics)[0] for j in (own, other))
        moved = f"from {was:.4g} to {now:.4g}, agreement of the predictions {other.agreement:.4f}"
        steps = f"the steps of {own.name.removesuffix(', its own')}"
        failed = [f"{j.num_failed} samples under {j.name}" for j in (own, other) if j.num_failed]
        if failed:
            return (
                f"The solve of {' and of '.join(failed)} failed, and counts as wrong: whether the network is still an "
                f"ODE is open (result {moved})."
            )
        if not own.nfe and not other.nfe:
            return "The ODE blocks of this model solved nothing: another solver has no part in its result."
        if other.nfe <= own.nfe:
            return (
                f"{other.name} makes no more evaluations than the run's own solver: only a finer one tells whether "
                f"the network is still an ODE (result {moved})."
            )
        scale = 1.0 if 0 <= min(was, now) <= max(was, now) <= 1 else max(abs(was), abs(now))
        if not abs(now - was) <= STILL_THE_SAME * scale:
            return (
                f"The network is no ODE any more: its result moves with a finer solver, {moved}. It has learned "
                f"{steps}; train with a tighter tolerance or more steps if it should stand for an ODE."
            )
        return f"The result holds under a finer solver, {moved}: so far it does not rest on {steps}."

    def _reconstruction(self) -> float | None:
        """|y(t0) solved forward and back - y(t0)| / |y(t0)| over all samples and blocks."""
        meter, device = _Distance(), next(self._model.parameters()).device
        blocks = ode_blocks(self._model).values()
        own = {block: block.gradient for block in blocks}
        try:
            for block, gradient in own.items():
                block.gradient = SolvedBack(gradient, 2, meter.add)
            with torch.no_grad(), autocast(device, self._precision):
                for batch in self._dataset.batches(self._split, self._batch_size):
                    self._task.loss(self._model, batch)
        except SolveError:
            return None
        finally:
            for block, gradient in own.items():
                block.gradient = gradient
        return meter.relative


class _Distance:
    """How far solves back have missed their starts, over all of them."""

    def __init__(self) -> None:
        self._distance, self._size = 0.0, 0.0

    def add(self, there: Tensor, back: Tensor) -> None:
        self._distance += (back[0] - there[0]).double().pow(2).sum().item()
        self._size += there[0].double().pow(2).sum().item()

    @property
    def relative(self) -> float:
        return math.sqrt(self._distance / self._size) if self._size else math.inf


def comparison_table(judgements: Sequence[Judgement]) -> list[str]:
    """The judgements side by side, one line each under a line of names; failed samples where there are any."""
    names = [name for name in judgements[0].evaluation.metrics if name != "failed"]
    any_failed = any(j.num_failed for j in judgements)
    rows: list[dict[str, Any]] = [
        {
            "solver": j.name,
            **{name: four_digits(j.evaluation.metrics[name]) for name in names},
            **({"failed": str(j.num_failed)} if any_failed else {}),
            **({"NFE": f"{j.nfe:.1f}", "reconstruction": _number(j.reconstruction)} if j.nfe else {}),
            "agreement": f"{j.agreement:.4f}",
        }
        for j in judgements
    ]
    return with_names(rows)


def _number(value: float | None) -> str:
    return "failed" if value is None else f"{value:.1e}"
