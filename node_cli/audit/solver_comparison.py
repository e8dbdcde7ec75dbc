"""A trained network evaluated with several solvers: is it still an ODE, or only right with its solver's steps?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from node_cli.audit.finer import is_finer
from node_cli.audit.stand_ins import SolvedBack
from node_cli.batch import Batch, num_samples
from node_cli.datasets.dataset import Dataset
from node_cli.models.ode_block import ode_blocks
from node_cli.ode.base import Solver
from node_cli.ode.solution import SolveError
from node_cli.tables import four_digits, two_digits, with_names
from node_cli.tasks.task import FAILED, Task
from node_cli.training.evaluation import Evaluation, autocast, evaluate

LIMIT = 0.01  # by which the objective may move: by that, or in relation, as the task says


@dataclass(frozen=True)
class UnderSolver:
    """A network evaluated with one solver. `agreement`: of the predictions with those of the run's own solver.

    `reconstruction` is None if the way back could not be solved.
    """

    name: str
    solver: Solver | None
    evaluation: Evaluation
    nfe: float
    agreement: float
    reconstruction: float | None

    @property
    def num_failed(self) -> int:
        """The number of samples that this solver could not solve."""
        return int(self.evaluation.metrics.get(FAILED, 0))


@dataclass
class SolverComparison:
    """Evaluates `model` on one split of `dataset`, first with its own solver, then with others."""

    model: torch.nn.Module
    task: Task
    dataset: Dataset
    split: str
    batch_size: int
    precision: str
    results: list[UnderSolver] = field(default_factory=list)

    def evaluate(self, name: str, solver: Solver | None = None) -> UnderSolver:
        """Evaluates with `solver` (None: the model's own).

        Raises:
            SolveError: the forward solve failed; unless `on_failure` is `raise`, that of every sample alone.
        """
        blocks = ode_blocks(self.model).values()
        for block in blocks:
            block.solver = solver or block.solver
        used = next((block.solver for block in blocks), None)
        how = (self.split, self.batch_size, self.precision)
        evaluation = evaluate(self.model, self.task, self.dataset, *how, with_details=False)
        first = self.results[0].evaluation if self.results else evaluation
        alike = agreement(first.rows, evaluation.rows)
        result = UnderSolver(name, used, evaluation, evaluation.nfe or 0.0, alike, self._reconstruction())
        self.results.append(result)
        return result

    def verdict(self) -> str:
        """One sentence that compares the last solver with the first."""
        own, other = self.results[0], self.results[-1]
        change, moved = self._change(own, other)
        own_name = own.name.removesuffix(", its own")
        failed = [f"{result.num_failed} samples under {result.name}" for result in (own, other) if result.num_failed]
        if failed:
            return (
                f"The solve of {' and of '.join(failed)} failed: whether the network is still an ODE is open ({moved})."
            )
        if own.solver is None or other.solver is None or not (own.nfe or other.nfe):
            return "The ODE blocks of this model solved nothing: another solver has no part in its result."
        if other.nfe <= own.nfe:
            return (
                f"{other.name} makes no more evaluations than the run's own solver: only a finer one tells whether "
                f"the network is still an ODE ({moved})."
            )
        if not is_finer(other.solver, own.solver):
            return (
                f"{other.name} is another solver, not a finer one: whether the network is still an ODE is open "
                f"({moved}). Finer than {own_name} is its method, or one of higher order, with tolerances of at most a "
                "tenth or, for fixed steps, at least twice as many."
            )
        if not change <= LIMIT:
            return (
                f"The network is no ODE any more: its result moves with a finer solver, {moved}. It has learned the "
                f"steps of {own_name}; train with a tighter tolerance or more steps if it should stand for an ODE."
            )
        return f"The result holds under a finer solver, {moved}: so far it does not rest on the steps of {own_name}."

    def _change(self, own: UnderSolver, other: UnderSolver) -> tuple[float, str]:
        """How far the objective of the task moves, and the same in words."""
        objective = self.task.objective[0]
        was, now = (result.evaluation.metrics[objective] for result in (own, other))
        change, kind = abs(now - was), "change"
        if objective not in self.task.differences:
            change, kind = (change / abs(was) if was else math.inf if change else 0.0), "relative change"
        said = f"{objective} from {was:.4g} to {now:.4g} ({kind} {change:.2g}, limit {LIMIT})"
        return change, f"{said}, agreement of the predictions {other.agreement:.4f}"

    def _reconstruction(self) -> float | None:
        """|y(t0) solved forward and back - y(t0)| / |y(t0)| over all samples and blocks."""
        squares = {"missed": 0.0, "size": 0.0}
        blocks = ode_blocks(self.model).values()
        own = {block: block.gradient for block in blocks}

        def add(there: Tensor, back: Tensor) -> None:
            squares["missed"] += (back[0] - there[0]).double().pow(2).sum().item()
            squares["size"] += there[0].double().pow(2).sum().item()

        try:
            for block, gradient in own.items():
                block.gradient = SolvedBack(gradient, 2, add)
            with torch.no_grad(), autocast(next(self.model.parameters()).device, self.precision):
                for batch in self.dataset.batches(self.split, self.batch_size):
                    self.task.predict(self.model, batch, torch.Generator().manual_seed(0))
        except SolveError:
            return None
        finally:
            for block, gradient in own.items():
                block.gradient = gradient
        return math.sqrt(squares["missed"] / squares["size"]) if squares["size"] else math.inf


def agreement(one: Batch, other: Batch) -> float:
    """How alike two evaluations of the same split predict, 0 to 1.

    Where rows hold whole numbers, such as classes: the fraction of samples that are given the same ones. Otherwise 1
    less the relative distance |other - one| / |one| of those rows that differ most, and no less than 0; what is NaN in
    both is left out. A sample that one of them could not solve is not alike.
    """
    count = num_samples(one)
    failed = [rows[FAILED] for rows in (one, other) if FAILED in rows]
    solved = ~torch.stack(failed).any(0) if failed else slice(None)
    ours, theirs = ({name: rows[name][solved] for name in one if name != FAILED} for rows in (one, other))
    if not num_samples(ours):
        return 0.0
    whole = [name for name, rows in ours.items() if not rows.is_floating_point()]
    if whole:
        same = torch.stack([(ours[name] == theirs[name]).reshape(num_samples(ours), -1).all(1) for name in whole])
        return int(same.all(0).sum()) / count
    alike = min(_likeness(rows, theirs[name]) for name, rows in ours.items())
    return alike * num_samples(ours) / count


def _likeness(one: Tensor, other: Tensor) -> float:
    known = ~(one.isnan() & other.isnan())
    distance, size = (values[known].double().norm().item() for values in (other - one, one))
    return max(0.0, 1 - distance / size) if size else float(distance == 0)


def comparison_table(results: Sequence[UnderSolver]) -> list[str]:
    """The solvers side by side, one line each under a line of names; failed samples only if there are any."""
    names = [name for name in results[0].evaluation.metrics if name != FAILED]
    any_failed = any(result.num_failed for result in results)
    rows = []
    for result in results:
        row = {"solver": result.name} | {name: four_digits(result.evaluation.metrics[name]) for name in names}
        if any_failed:
            row["failed"] = str(result.num_failed)
        if result.nfe:
            back = result.reconstruction
            row |= {"NFE": f"{result.nfe:.1f}", "reconstruction": "failed" if back is None else two_digits(back)}
        rows.append(row | {"agreement": f"{result.agreement:.4f}"})
    return with_names(rows)
