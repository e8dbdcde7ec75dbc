"""What a solve by compiled blocks leaves behind: its outputs, and the trace for its gradient."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.graphs.places import MOST_NUMBERS, Places, groups
from node_cli.ode.graphs.solve_graphs import SolveGraphs, Trace
from node_cli.ode.integrate import Run
from node_cli.ode.progress import OutputTimes, Samples
from node_cli.ode.stepping import Step
from node_cli.ode.tableaus import Array


class Gathered:
    """The accepted steps of a solve through `times`, as the blocks make them, and their `states` with the last one.

    Outputs are interpolated in many steps at once, whose rows are kept until then.
    """

    def __init__(self, run: Run, graphs: SolveGraphs, times: OutputTimes | Samples, *, is_anchored: bool) -> None:
        self._graphs = graphs
        self._times = copy(times)
        self._is_anchored = is_anchored
        self.by_sample = isinstance(times, Samples)
        self.ts: Array = np.array(times.ts)  # `(times,)`, or `(batch, times)`
        self.blocks = graphs.blocks(
            by_sample=self.by_sample, has_outputs=self.ts.shape[-1] > 2, interpolates=not times.stepping_onto
        )
        self.states = [run.y0]
        self._ys = run.states()
        self._ends: list[Any] = []
        self._steps: list[Step] = []  # of own times
        self._rows: list[Tensor] = []
        self._row_of: list[int] = []
        self._num_put = 0

    def add(self, states: list[Tensor], rows: list[Tensor], kept: list[tuple[int, Any, Any, Any]]) -> None:
        """A block: the states before and after its attempts, their rows in one tensor, or none, and those that were
        kept, each with its number in the block, its two ends, and whether, or who, moved.
        """
        before = sum(map(len, self._rows))
        for n, t0, t1, moved in kept:
            self.states.append(states[n + 1])
            self._row_of.append(before + n)
            if isinstance(self._times, Samples):
                self._steps.append(self._times.step(t1, moved, is_anchored=self._is_anchored))
                t1 = np.where(moved, t1, t0)
            self._ends.append((t0, t1))
        self._rows += rows
        if sum(each.numel() for each in self._rows) > MOST_NUMBERS:
            self._put(self._places())

    def finished(self) -> tuple[Tensor, Trace]:
        """The outputs and the trace, once the last step was added."""
        places = self._places()
        self._put(places)
        ys, placed = self._ys, places.states
        if placed.sample is None:
            ys[placed.place()] = torch.stack([self.states[n] for n in placed.number])
        else:
            for first, last in groups(len(self.states), ys[0].numel()):
                part = placed.between(first, last)
                if len(part):
                    ys[part.place()] = part.picked(torch.stack(self.states[first:last]))
        return ys, self._trace(places)

    def trace_of(self, kept: list[tuple[Step, Tensor]], ys: Tensor) -> Trace:
        """That of a solve in plain steps, each with the state that it started from, to the outputs `ys`."""
        end = ys[-1]
        if isinstance(self._times, Samples):
            self._steps = [step for step, _ in kept]
            end = ys[self._times.end, np.arange(len(end))]
        self.states = [*(y for _, y in kept), end.clone()]
        for step, _ in kept:
            t1 = step.t1 if step.accepted is None else np.where(step.accepted.cpu(), step.t1, step.t0)
            self._ends.append((step.t0, t1))
        return self._trace(self._places())

    def _put(self, places: Places) -> None:
        """The outputs inside the steps since the last time."""
        part = places.inside.between(self._num_put, len(self._ends))
        if len(part):
            rows = self._rows[0] if len(self._rows) == 1 else torch.cat(self._rows)
            self._ys[part.place()] = part.interpolated(rows, np.array(self._row_of))
        self._num_put, self._rows, self._row_of = len(self._ends), [], []

    def _places(self) -> Places:
        tableau = self._graphs.tableau
        stepping_onto = self._times.stepping_onto
        if self.by_sample:
            return Places.of_samples(tableau, self._steps, steps_onto_some=stepping_onto and self.blocks.has_outputs)
        ends = np.array(self._ends).reshape(-1, 2)
        return Places.of_all(tableau, self.ts, ends, stepping_onto=stepping_onto)

    def _trace(self, places: Places) -> Trace:
        return Trace(self.blocks, self.ts, np.array(self._ends), self.states, places, self._made_steps)

    def _made_steps(self) -> list[Step]:
        if isinstance(self._times, Samples):
            return self._steps
        times = copy(self._times)
        return [times.step(t1, is_anchored=self._is_anchored) for _, t1 in self._ends]
