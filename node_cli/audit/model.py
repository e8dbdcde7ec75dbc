"""Any model on a batch of its data: is its gradient that of the loss computed, and how far is it from the ODE's?

Two errors, kept apart. Against the exact gradient of the pass that was made (the same steps, in float64): the method's
own. Against a float64 solve at a tight tolerance: the method's and the discretisation's together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from torch import nn

from node_cli.advice import in_keys
from node_cli.audit.backward_pass import BackwardPass, Cost, Pass
from node_cli.audit.base import AuditReport, Tick
from node_cli.audit.case import Case
from node_cli.audit.comparison import Gradients, difference, norm
from node_cli.audit.model_report import model_report
from node_cli.audit.model_rows import ModelRow
from node_cli.audit.verdict import Verdict
from node_cli.batch import Batch, num_samples
from node_cli.datasets.dataset import Dataset
from node_cli.models.ode_block import ode_blocks
from node_cli.ode.base import Solver
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
        for key, least in (("batch_size", 1), ("num_times", 2)):
            if vars(self)[key] < least:
                raise ValueError(f"{key} must be at least {least}, got {vars(self)[key]}")
        for key in ("reference_rtol", "accepted_error"):
            if not 0 < vars(self)[key] < 1:
                raise ValueError(f"{key} must be between 0 and 1, got {vars(self)[key]}")
        if self.rtols and self.reference_rtol > min(self.rtols) / 10:
            raise ValueError(
                f"reference_rtol must be at most a tenth of the smallest of rtols ({min(self.rtols):g}), "
                f"got {self.reference_rtol:g}"
            )
        if not ode_blocks(self.model):
            raise ValueError(
                f"problem=model needs an ODE block, which {type(self.model).__name__} has not: take model=odenet"
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
        return model_report(name, rows, of_reference, Verdict(rows, self.accepted_error))

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
        if row.mistake or row.against_pass.relative_error < FAR_OFF:
            return row
        return replace(row, mistakes=self._once("wrong sign", row.case.solver, self._wrong_sign))

    def _wrong_sign(self, solver: Solver) -> dict[str, Gradients]:
        if isinstance(vars(solver).get("atol"), list):
            return {}  # one for each channel, which the adjoint's solve does not have
        try:
            return {WRONG_SIGN: self.passes.with_wrong_sign(solver)}
        except SolveError:
            return {}

    def _reconstruction(self, case: Case) -> dict[str, list[float]]:
        def solve_back(_: Solver) -> dict[str, list[float]]:
            try:
                return self.passes.reconstruction(case, self.num_times)
            except SolveError:
                return {}

        return self._once("reconstruction", case.solver, solve_back)

    def _once(self, what: str, solver: Solver, measure: Callable[[Solver], Found]) -> Found:
        key = (what, repr(solver))
        if key not in self._shared:
            self._shared[key] = measure(solver)
        found: Found = self._shared[key]
        return found
