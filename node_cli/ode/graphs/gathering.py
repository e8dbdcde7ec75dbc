"""What a solve by compiled blocks leaves behind: its outputs, and the trace for its gradient."""

from __future__ import annotations

from copy import copy
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.graphs.beside import Work
from node_cli.ode.graphs.places import MOST_NUMBERS, ListedPlaces, Places, WeightedPlaces, groups
from node_cli.ode.graphs.solve_graphs import SolveGraphs, Trace
from node_cli.ode.integrate import Run
from node_cli.ode.progress import OutputTimes, Samples
from node_cli.ode.states import on_device
from node_cli.ode.stepping import Step
from node_cli.ode.tableaus import Array


class Gathered:
    """The accepted steps of a solve through `times`, as the blocks make them, and their `states` with the last one.

    Outputs are interpolated in many steps at once, whose rows are kept until then.
    """

    def __init__(self, run: Run, graphs: SolveGraphs, times: OutputTimes | Samples, *, is_anchored: bool) -> None:
        self._graphs = graphs
        self._times = copy(times) if isinstance(times, Samples) else times
        self._is_anchored = is_anchored
        self.by_sample = isinstance(times, Samples)
        self.ts: Array = np.array(times.ts)  # `(times,)`, or `(batch, times)`
        self.blocks = graphs.blocks(
            by_sample=self.by_sample,
            num_outputs=self.ts.shape[-1],
            interpolates=not times.stepping_onto,
            size=self.ts.shape[-1] * run.y0.numel(),
        )
        self.states = [run.y0]
        # Without a gradient, blocks that keep what it needs are taken all the same if they are compiled already.
        keeps = graphs.keeps or (not graphs.has_gradient and self.blocks.some_keep)
        num_kept = self.blocks.plan.num_kept if keeps else None
        self.keeps = num_kept is not None
        self._num_kept = num_kept or 0
        self._kept_of_steps: list[list[Tensor]] = []
        self._ys: Tensor | None = None
        self._ends: list[Any] = []
        self._steps: list[Step] = []  # of own times
        self._rows: list[Tensor] = []
        self._row_of: list[int] = []
        self._weights: list[Tensor] = []
        self._all_weights: list[Tensor] = []  # of accepted steps
        self._num_put = 0

    @cached_property
    def times(self) -> Tensor:
        """On the device: `(times,)`, or `(times, batch)`."""
        return on_device(self.ts.T.copy() if self.by_sample else self.ts, self.states[0].device)

    def backwards(self, size: int, *, is_first: bool) -> Work | None:
        """What compiles so many of the steps backwards, if they are to come."""
        graphs, blocks = self._graphs, self.blocks
        if not graphs.has_gradient:
            return None
        if self.keeps:
            return partial(blocks.backward_of_kept, size, is_first=is_first)
        return partial(blocks.backward, size, with_times=graphs.with_times) if is_first else None

    def add(self, size: int, results: list[Tensor], y1: Tensor, kept: list[tuple[int, Any, Any, Any]]) -> None:
        """A block of this size by its results, from its states on, to the state `y1`; and which attempts were kept.

        Each of these has its number in the block, its two ends, and whether, or who, moved.
        """
        before, states = sum(map(len, self._rows)), [*results[: size - 1], y1]
        num_kept = self._num_kept
        begin = len(results) - size * num_kept
        rows, of_steps = results[size - 1 : begin], results[begin:]
        for n, t0, t1, moved in kept:
            self.states.append(states[n])
            if self.keeps and self._graphs.keeps:
                self._kept_of_steps.append(of_steps[n * num_kept : (n + 1) * num_kept])
            self._row_of.append(before + n)
            if isinstance(self._times, Samples):
                self._steps.append(self._times.step(t1, moved, is_anchored=self._is_anchored))
                t1 = np.where(moved, t1, t0)
            self._ends.append((t0, t1))
        if self.blocks.plan.adds_up:
            self._ys = rows[0] if self._ys is None else self._ys.add_(rows[0])
            return
        self._rows += rows[:1]
        self._weights += rows[1:]
        if sum(each.numel() for each in self._rows) > MOST_NUMBERS:
            self._put()

    def finished(self) -> tuple[Tensor, Trace]:
        """The outputs and the trace, once the last step was added."""
        self._put()
        y0, end, tableau, ys = self.states[0], self.states[-1], self._graphs.tableau, self._ys
        places: Places
        if self.by_sample:
            ys, places = self._so_far(), self._places()
            for first, last in groups(len(self.states), y0.numel()):
                part = places.states.between(first, last)
                if len(part):
                    ys[part.place()] = part.picked(torch.stack(self.states[first:last]))
        elif not self.blocks.plan.has_outputs:
            ys = torch.stack([y0, end])
            places = WeightedPlaces(ys)  # of none between the two
        elif self._times.stepping_onto:
            places = ListedPlaces.at_ends(tableau, self.ts, np.array(self._ends))
            ys = torch.stack([y0, *(self.states[n] for n in places.states.number)])
        else:
            assert ys is not None
            if self.blocks.plan.adds_up:
                return ys, self._trace(WeightedPlaces(ys))
            ys[0], ys[-1], places = y0, end, WeightedPlaces(_joined(self._all_weights, 1))
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
        return self._trace(None)

    def _put(self) -> None:
        """The outputs inside the steps since the last time."""
        if self._row_of and self._rows:
            rows = _joined(self._rows, 0)
            if self.by_sample:
                part = self._places().inside.between(self._num_put, len(self._ends))
                if len(part):
                    self._so_far()[part.place()] = part.interpolated(rows, np.array(self._row_of))
            else:
                self._add_weighted(rows)
        self._num_put, self._rows, self._row_of, self._weights = len(self._ends), [], [], []

    def _so_far(self) -> Tensor:
        """The outputs of samples with their own times; all are the start as yet."""
        if self._ys is None:
            y0 = self.states[0]
            self._ys = y0.expand(self.ts.shape[-1], *y0.shape).clone()
        return self._ys

    def _add_weighted(self, rows: Tensor) -> None:
        """The same by weights, which are kept for steps that were accepted."""
        weights = _joined(self._weights, 1)
        found = torch.mm(weights.flatten(1), rows.view(weights[0].numel(), -1)).view(len(weights), *rows.shape[2:])
        self._ys = found if self._ys is None else self._ys.add_(found)
        if len(self._row_of) < len(rows):
            weights = weights.index_select(1, torch.tensor(self._row_of, device=rows.device))
        self._all_weights.append(weights)

    def _places(self) -> ListedPlaces:
        onto_some = self._times.stepping_onto and self.blocks.plan.has_outputs
        return ListedPlaces.of_samples(self._graphs.tableau, self._steps, steps_onto_some=onto_some)

    @property
    def is_moving(self) -> bool:
        """Whether the last time is another one than the first one."""
        ts: Any = self._times.ts
        return bool((ts[:, 0] != ts[:, -1]).any()) if self.by_sample else ts[0] != ts[-1]

    def _trace(self, places: Places | None) -> Trace:
        times = self.times if self.blocks.plan.adds_up else None
        ends, kept = np.array(self._ends), self._kept_of_steps
        return Trace(self.blocks, self.ts, times, ends, self.states, places, kept, self._made_steps)

    def _made_steps(self) -> list[Step]:
        if isinstance(self._times, Samples):
            return self._steps
        times = OutputTimes(self.ts.tolist(), self._times.stepping_onto)
        return [times.step(t1, is_anchored=self._is_anchored) for _, t1 in self._ends]


def _joined(tensors: list[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)
