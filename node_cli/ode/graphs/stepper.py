"""Takes the steps of one solve by compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.control import Controller, Norm, Tolerance
from node_cli.ode.graphs.blocks import Blocks
from node_cli.ode.graphs.capture import FieldGraph
from node_cli.ode.graphs.examples import Examples
from node_cli.ode.graphs.functions import StepGraphs
from node_cli.ode.progress import OutputTimes
from node_cli.ode.solution import Status
from node_cli.ode.states import Time, as_column
from node_cli.ode.stepping import Outputs, Slope, Step, Stepper, exact_tensor
from node_cli.ode.tableaus import Tableau
from node_cli.ode.vector_field import CountedVectorField


@dataclass(frozen=True, eq=False)
class Trace:
    """The accepted steps of a solve by `blocks` through `ts`: their ends, and their states with the last one."""

    blocks: Blocks
    ts: list[float]
    ends: list[tuple[float, float]]
    states: list[Tensor]

    def steps(self) -> list[Step]:
        """The same with the outputs that each of them reached."""
        times = OutputTimes(self.ts, stepping_onto=False)
        return [times.step(t1) for _, t1 in self.ends]


class SolveGraphs:
    """What one solve runs: a captured vector field with the `inputs` that it uses now, and what is compiled of it.

    `refuse` is told why something of it cannot be compiled: from then on nothing is. `trace` is what a solve in blocks
    leaves behind for its gradient.
    """

    def __init__(
        self,
        field: FieldGraph,
        inputs: tuple[Tensor, ...],
        tableau: Tableau,
        refuse: Callable[[Exception], None],
        *,
        has_own_times: bool,
    ) -> None:
        self.field = field
        self.refuse = refuse
        self.inputs = inputs
        self.tableau = tableau
        self.has_own_times = has_own_times
        self.trace: Trace | None = None
        self.keeps_states = True  # all of them, if there is to be a gradient
        self.differentiable = tuple(tensor for tensor, needed in zip(inputs, field.needs_grad, strict=True) if needed)

    def functions(self, norm: Norm | None = None, shapes: tuple[torch.Size, ...] = ()) -> StepGraphs:
        """The compiled functions for this norm, and tolerances of these shapes; None: for steps without an error."""
        key = (self.tableau, norm, shapes, self.has_own_times)
        found: StepGraphs | None = self.field.functions.get(key)
        if found is None:
            found = StepGraphs(self.examples(shapes), self.tableau, norm)
            self.field.functions[key] = found
        return found

    def blocks(self, norm: Norm, shapes: tuple[torch.Size, ...], controller: Controller, max_step: float) -> Blocks:
        """The compiled blocks of attempts, and of steps backwards, for this step size control at its start."""
        key = (self.tableau, norm, shapes, tuple(vars(controller).values()), max_step)
        found: Blocks | None = self.field.functions.get(key)
        if found is None:
            found = Blocks(self.examples(shapes), self.tableau, norm, replace(controller), max_step)
            self.field.functions[key] = found
        return found

    def examples(self, shapes: tuple[torch.Size, ...] = ()) -> Examples:
        """What stands for the arguments of compiled functions."""
        return Examples(self.field, shapes, has_own_times=self.has_own_times)

    def with_inputs(self, differentiable: Any) -> Slope:
        """The vector field with other tensors in the places of the inputs that have a gradient."""
        others, needs_grad = iter(differentiable), self.field.needs_grad
        return self.field.slope(
            [next(others) if needed else tensor for tensor, needed in zip(self.inputs, needs_grad, strict=True)]
        )

    def ends(self, t0: Time, t1: Time, like: Tensor) -> Tensor:
        """Both ends of a step for a compiled function."""
        if isinstance(t0, float):
            return torch.tensor((t0, t1), dtype=torch.float64, device=like.device)
        return torch.from_numpy(np.stack((t0, t1))).to(like.device)

    def outputs(self, inside: Outputs, like: Tensor) -> list[Tensor]:
        """Where outputs lie in a step, for a compiled function: theta, and with own times the samples."""
        theta = torch.tensor(inside.theta, dtype=torch.float64, device=like.device)
        return [theta] if inside.sample is None else [theta, torch.from_numpy(inside.sample).to(like.device)]


class GraphStepper:
    """A `Stepper` of compiled functions: `stages` are the slopes of the last step."""

    def __init__(self, graphs: SolveGraphs, counted: CountedVectorField[Tensor]) -> None:
        self.graphs = graphs
        self.tableau = graphs.tableau
        self.stages: list[Tensor] = []
        self._inputs = graphs.inputs
        self.counted = counted
        self._plain = graphs.functions()
        self._ends: Tensor | None = None

    def plain(self, y0: Tensor) -> Stepper:
        """The same steps without anything compiled."""
        return Stepper(self.tableau, self.counted, y0)

    def start(self, t: Time, y: Tensor) -> None:
        """Evaluates the first stage of the next step."""
        self._count(t, t, (0.0,), y)
        self.stages[:1] = self._plain.start([self.graphs.ends(t, t, y), y, *self._inputs])

    def first_step(self, tolerance: Tolerance, y: Tensor, longest: Time) -> Tensor:
        """See `choose_first_step`; the slope of `y` is in `stages[0]`."""
        bounds = bounds_of(tolerance, y)
        length = torch.as_tensor(longest, dtype=torch.float64, device=y.device)
        step: Tensor = self._functions(tolerance, bounds).first_step([y, self.stages[0], length, *bounds])[0]
        return step

    def step(self, t0: Time, t1: Time, y: Tensor) -> Tensor:
        """The state at `t1` from `y` at `t0`, whose slope is in `stages[0]`."""
        return self._take(self._plain, t0, t1, y)[0]

    def attempt(self, t0: Time, t1: Time, y: Tensor, tolerance: Tolerance) -> tuple[Tensor, Tensor]:
        """The state at `t1`, and the error of the step in units of what is allowed."""
        bounds = bounds_of(tolerance, y)
        y1, ratio, *_ = self._take(self._functions(tolerance, bounds), t0, t1, y, *bounds)
        return y1, ratio

    def next(self, t: Time, y: Tensor, moved: Tensor | None = None) -> None:
        """Makes the first stage of a step from `y`, where the last step ended; see `Stepper.next`."""
        if not self.tableau.is_fsal:
            self.start(t, y)
        elif moved is None:
            self.stages[0] = self.stages[-1]
        else:
            self.stages[0] = torch.where(moved, self.stages[-1], self.stages[0])

    def error(self, t0: Time, t1: Time) -> Tensor:
        """The estimated error of the last step, of the shape of the state."""
        weights = self.stages[0].new_tensor(self.tableau.error_weights or ())
        h = as_column(exact_tensor(t1 - t0, self.stages[0]), self.stages[0]).to(weights)
        return torch.einsum("s,s...->...", weights, torch.stack(self.stages)) * h

    def keep(self, ys: Tensor, step: Step, y0: Tensor, y1: Tensor) -> None:
        """Puts the states at the asked times of a step from `y0` to `y1` in their places in `ys`."""
        inside, ends = step.inside, step.ends
        if len(inside):
            assert self._ends is not None
            where = [self._ends, y0, *self.stages, *self.graphs.outputs(inside, y0)]
            ys[inside.rows_of_times] = self._plain.outputs(where)[0]
        if len(ends):
            ys[ends.rows_of_times] = ends.rows(y1)

    def _functions(self, tolerance: Tolerance, bounds: tuple[Tensor, ...]) -> StepGraphs:
        return self.graphs.functions(tolerance.norm, tuple(bound.shape for bound in bounds))

    def _take(self, functions: StepGraphs, t0: Time, t1: Time, y: Tensor, *bounds: Tensor) -> tuple[Tensor, ...]:
        self._count(t0, t1, self.tableau.c[1:], y)
        self._ends = self.graphs.ends(t0, t1, y)
        results = functions.attempt([self._ends, y, self.stages[0], *bounds, *self._inputs])
        self.stages[1:] = results[1 + (len(bounds) > 0) :]
        return results

    def _count(self, t0: Time, t1: Time, c: tuple[float, ...], y: Tensor) -> None:
        """Counts evaluations at these shares of a step, up to the first one that is not allowed any more."""
        stats, most = self.counted.stats, self.counted.max_nfe
        if most is not None and stats.nfe + len(c) > most:
            share, stats.nfe = c[most - stats.nfe], most
            t = t0 + share * (t1 - t0)
            raise self.counted.failure(Status.TOO_MANY_EVALUATIONS, exact_tensor(t, y).to(y.dtype))
        stats.nfe += len(c)


def bounds_of(tolerance: Tolerance, y: Tensor) -> tuple[Tensor, ...]:
    """Relative and absolute tolerance as tensors of the state's dtype."""
    return tuple(
        value if isinstance(value, Tensor) else _number(value, y.dtype, y.device)
        for value in (tolerance.rtol, tolerance.atol)
    )


@lru_cache(maxsize=64)
def _number(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=dtype, device=device)
