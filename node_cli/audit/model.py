"""Any model on a batch of its data: is its gradient that of the loss computed, and how far is it from the ODE's?

Two errors, kept apart. Against the exact gradient of the pass that was made (the same steps, in float64): the method's
own. Against a float64 solve at a tight tolerance: the method's and the discretisation's together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import nn

from node_cli.advice import in_keys
from node_cli.audit.backward_pass import BackwardPass, Cost, Pass
from node_cli.audit.base import AuditReport, Case, Tick
from node_cli.audit.comparison import difference, norm
from node_cli.audit.model_report import model_report
from node_cli.audit.model_rows import ModelRow
from node_cli.audit.verdict import Verdict
from node_cli.batch import Batch, num_samples
from node_cli.datasets.dataset import Dataset
from node_cli.models.ode_block import ode_blocks
from node_cli.ode.base import Solver
from node_cli.ode.checks import require, require_at_least
from node_cli.ode.solution import SolveError
from node_cli.tasks.task import Task

Found = TypeVar("Found")

WRONG_SIGN = "it solves da/dt = +a df/dy, the adjoint's ODE with the wrong sign"
FAR_OFF = 0.3  # a relative error that asks for an explanation


@dataclass(frozen=True, kw_only=True)
class ModelAudit:
    """Audits `model` on the first batch of its training data; `rtols` are those of the cases.

    The loss is that at the end of a run.

    Raises:
        ValueError: a setting out of range, or a model without ODE blocks.
    """

    model: nn.Module
    task: Task
    dataset: Dataset
    seed: int
    precision: str
    rtols: list[float]
    batch_size: int
    reference_rtol: float
    accepted_error: float
    num_times: int

    def __post_init__(self) -> None:
        require_at_least("batch_size", self.batch_size, 1)
        require_at_least("num_times", self.num_times, 2)
        for key in ("reference_rtol", "accepted_error"):
            require(0 < vars(self)[key] < 1, f"{key} must be between 0 and 1", vars(self)[key])
        tightest = min(self.rtols, default=1.0)
        rule = f"reference_rtol must be at most a tenth of the smallest of rtols ({tightest:g})"
        require(self.reference_rtol <= tightest / 10, rule, f"{self.reference_rtol:g}")
        if not ode_blocks(self.model):
            raise ValueError(
                f"problem=model needs an ODE block, which {type(self.model).__name__} has not: take model=odenet, or "
                "model=neural_ode for series"
            )
        self._passes().check_float64()

    def num_measurements(self, cases: Sequence[Case]) -> int:
        """The reference twice, and every case."""
        return 2 + len(cases)

    def audit(self, cases: Sequence[Case], tick: Tick) -> AuditReport:
        """See `AuditProblem.audit`; a case that cannot be solved has a row that says so.

        Raises:
            SolveError: the reference cannot be solved.
        """
        passes = self._passes()
        tick(f"reference {10 * self.reference_rtol:g}")
        rough, _ = passes.of_the_ode(10 * self.reference_rtol)
        tick(f"reference {self.reference_rtol:g}")
        reference, nfe = passes.of_the_ode(self.reference_rtol)
        uncertainty = difference(rough.parameters, reference.parameters).relative_error
        measure = _Measuring(passes, reference, self.num_times)
        rows = []
        for case in cases:
            tick(case.name)
            rows.append(measure.row(case))
        of_reference = {
            "rtol": self.reference_rtol,
            "nfe": nfe,
            "uncertainty": uncertainty,
            "loss": reference.loss,
            "norm": norm(reference.parameters),
        }
        name = f"{type(self.model).__name__}, a batch of {num_samples(self._batch())} in {self.precision}"
        report = model_report(name, rows, of_reference, Verdict(rows, self.accepted_error))
        return replace(report, notes=[*report.notes, *self.task.audit_notes(self.model.eval(), self._batch())])

    def _batch(self) -> Batch:
        return next(self.dataset.train_batches(self.batch_size, self.seed, epoch=0))

    def _passes(self) -> BackwardPass:
        return BackwardPass(self.model, self.task, self._batch(), self.precision)


@dataclass
class _Measuring:
    """Rows of cases; what cases of one solver share is measured once."""

    passes: BackwardPass
    reference: Pass
    num_times: int
    _shared: dict[Any, Any] = field(default_factory=dict)

    def row(self, case: Case) -> ModelRow:
        """What is measured of `case`, or the reason why it cannot be solved."""
        try:
            made = self.passes.of(case)
            cost: Cost = self.passes.cost_of(case)
            names, back = self.passes.block_names, self._reconstruction(case)
            row = ModelRow(case, names, self.reference, made, cost=cost, reconstruction=back)
            if not case.solver.differentiable:
                return row
            exact, rounding = self._once("exact", case.solver, self.passes.exact)
            return self._explained(replace(row, exact=exact, rounding=rounding))
        except SolveError as error:
            return ModelRow(case, self.passes.block_names, self.reference, failure=in_keys(error))

    def _explained(self, row: ModelRow) -> ModelRow:
        """The same; where it is far off for no reason known, held against the adjoint with the wrong sign too."""
        assert row.against_pass is not None
        solver = row.case.solver
        if row.mistake or row.against_pass.relative_error < FAR_OFF or isinstance(vars(solver).get("atol"), list):
            return row  # the adjoint's solve has no tolerances channel by channel
        with suppress(SolveError):
            wrong = self._once("wrong sign", solver, self.passes.with_wrong_sign)
            return replace(row, mistakes={WRONG_SIGN: wrong})
        return row

    def _reconstruction(self, case: Case) -> dict[str, list[float]]:
        with suppress(SolveError):
            return self._once("back", case.solver, lambda _: self.passes.reconstruction(case, self.num_times))
        return {}

    def _once(self, what: str, solver: Solver, measure: Callable[[Solver], Found]) -> Found:
        """What `measure` gives for this solver, or the SolveError that it raises; measured once."""
        key = (what, repr(solver))
        if key not in self._shared:
            try:
                self._shared[key] = measure(solver)
            except SolveError as error:
                self._shared[key] = error
        found: Found | SolveError = self._shared[key]
        if isinstance(found, SolveError):
            raise found
        return found
