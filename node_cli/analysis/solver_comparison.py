"""A trained network judged under several solvers: does it still stand for an ODE, or only for its solver's steps?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from node_cli.datasets.base import Dataset
from node_cli.models.ode_block import OdeBlock, ode_blocks
from node_cli.ode.base import Solver
from node_cli.ode.solution import SolveError
from node_cli.tasks.base import Evaluation, Task
from node_cli.training.evaluation import autocast, evaluate
from node_cli.training.solve_monitor import SolveMonitor

STILL_THE_SAME = 0.01  # the first metric of the task's rank (accuracy) may move by so much


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
        costs = self._monitor.take()
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
        moved = f"from {was:.4f} to {now:.4f}, {100 * other.agreement:.1f} % of predictions the same"
        failed = [f"{j.num_failed} samples under {j.name}" for j in (own, other) if j.num_failed]
        if failed:
            return (
                f"The solve of {' and of '.join(failed)} failed, and counts as wrong: whether the network is still an "
                f"ODE is open (result {moved})."
            )
        if other.nfe <= own.nfe:
            return (
                f"{other.name} makes no more evaluations than the run's own solver: only a finer one tells whether "
                f"the network is still an ODE (result {moved})."
            )
        if abs(now - was) > STILL_THE_SAME:
            return (
                f"The network is no ODE any more: its result moves with a finer solver, {moved}. It has learned the "
                f"steps of {own.name}; train with a tighter tolerance or more steps if it should stand for an ODE."
            )
        return f"The result holds under a finer solver ({moved}): the network stands for the ODE."

    def _reconstruction(self) -> float | None:
        """|y(t0) solved forward and back - y(t0)| / |y(t0)| over all samples and blocks."""
        meter = _ReconstructionMeter(self._model)
        try:
            with torch.no_grad(), autocast(meter.device, self._precision):
                for batch in self._dataset.batches(self._split, self._batch_size):
                    self._model(batch.inputs)
        except SolveError:
            return None
        finally:
            meter.close()
        return meter.relative_error


class _ReconstructionMeter:
    """While open, every solve of the model is solved back again and the distance to its start is summed up."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.device = next(model.parameters()).device
        self._distance = torch.zeros((), dtype=torch.float64)
        self._size = torch.zeros((), dtype=torch.float64)
        self._handles = [block.register_forward_hook(self._solve_back) for block in ode_blocks(model).values()]

    def _solve_back(self, block: OdeBlock, args: tuple[Tensor, ...], y1: Tensor) -> None:
        y0 = args[0].to(y1.dtype)
        back = block.solve(y1, block.ts.flip(0)).ys[-1]
        self._distance += (back - y0).double().pow(2).sum().cpu()
        self._size += y0.double().pow(2).sum().cpu()

    @property
    def relative_error(self) -> float:
        return (self._distance / self._size).sqrt().item()

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def comparison_table(judgements: Sequence[Judgement]) -> list[str]:
    """The judgements side by side, one line each under a line of names; failed samples where there are any."""
    names = [name for name in judgements[0].evaluation.metrics if name != "failed"]
    any_failed = any(j.num_failed for j in judgements)
    rows: list[dict[str, Any]] = [
        {
            "solver": j.name,
            **{name: f"{j.evaluation.metrics[name]:.4f}" for name in names},
            **({"failed": str(j.num_failed)} if any_failed else {}),
            **({"NFE": f"{j.nfe:.1f}", "reconstruction": _number(j.reconstruction)} if j.nfe else {}),
            "agreement": f"{100 * j.agreement:.1f} %",
        }
        for j in judgements
    ]
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = [{key: key for key in widths}, *rows]
    return ["  ".join(f"{line[key]:<{width}}" for key, width in widths.items()).rstrip() for line in lines]


def _number(value: float | None) -> str:
    return "failed" if value is None else f"{value:.1e}"
