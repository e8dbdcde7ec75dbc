"""Where the outputs of a solve lie among its steps, and what is computed for them in many steps at once.

A step that outputs are interpolated in has rows, its state and its stages: `(rows, ...)`, or `(batch, rows, ...)` where
each sample has a time of its own. An output is a weighted sum of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.stepping import Step
from node_cli.ode.tableaus import Array, Tableau

MOST_NUMBERS = 2**20  # of rows and states that are kept for the outputs at once


def groups(num_steps: int, size: int, *, of: int = 1) -> Iterator[tuple[int, int]]:
    """First step and the one after the last, of as many steps as may be kept, each of this `size`; a multiple `of`."""
    most = max(1, MOST_NUMBERS // (size * of)) * of
    for first in range(0, num_steps, most):
        yield first, min(first + most, num_steps)


@dataclass(frozen=True, eq=False)
class Placed:
    """Outputs by the `number`, from 0 on and in order, of the step that they lie in, or of the state that they are.

    They are those at `index` in the times, of a `sample` (None: of all samples). Inside steps, `weights`
    `(outputs, rows)` make them of the rows. State n is the one that step n starts from.
    """

    number: Array
    index: Array
    sample: Array | None
    weights: Array | None = None

    def __len__(self) -> int:
        return len(self.number)

    def between(self, first: int, last: int) -> Placed:
        """Those from number `first` up to, but without, `last`; they are counted from `first` on."""
        part = slice(*np.searchsorted(self.number, (first, last)))
        sample, weights = (None if each is None else each[part] for each in (self.sample, self.weights))
        return Placed(self.number[part] - first, self.index[part], sample, weights)

    def place(self) -> tuple[slice | Array, ...]:
        """What picks them from all outputs, `(times, ...)`; those of all samples lie side by side."""
        return (slice(self.index[0], self.index[-1] + 1),) if self.sample is None else (self.index, self.sample)

    def picked(self, states: Tensor) -> Tensor:
        """The states `(numbers, ...)` that the outputs are."""
        return _flat(states, self.sample).index_select(0, self._picks(states, self.number))

    def interpolated(self, rows: Tensor, row_of: Array) -> Tensor:
        """The outputs by the rows of attempts; `row_of` says which of these each step was."""
        flat = _flat(rows, self.sample)
        own = flat.view(*flat.shape[:2], -1).index_select(0, self._picks(rows, row_of[self.number]))
        return torch.bmm(self._weights_like(rows).unsqueeze(1), own).view(len(self), *flat.shape[2:])

    def add_cotangents(self, rows: Tensor, grad_ys: Tensor) -> None:
        """Adds to the cotangents of rows by those of all outputs; of outputs that are states, to the first rows."""
        if not len(self):
            return
        flat = _flat(rows, self.sample)
        flat, picks = flat.view(*flat.shape[:2], -1), self._picks(rows, self.number)
        grads = grad_ys[self.place()].reshape(len(self), 1, -1)
        if self.weights is None:
            flat[:, :1].index_add_(0, picks, grads)
        else:
            flat.index_add_(0, picks, torch.bmm(self._weights_like(rows).unsqueeze(2), grads))

    def _picks(self, values: Tensor, number: Array) -> Tensor:
        picks = number if self.sample is None else number * values.shape[1] + self.sample
        return torch.from_numpy(picks).to(values.device)

    def _weights_like(self, rows: Tensor) -> Tensor:
        return torch.from_numpy(self.weights).to(rows)


def _flat(values: Tensor, sample: Array | None) -> Tensor:
    """With one number for each step, or each sample of each step, in the first dimension."""
    return values if sample is None else values.flatten(0, 1)


@dataclass(frozen=True, eq=False)
class Places:
    """The outputs of a solve but the first one, which it starts from: those that are `states`, those `inside` steps."""

    states: Placed
    inside: Placed

    @classmethod
    def of_all(cls, tableau: Tableau, ts: Array, ends: Array, *, stepping_onto: bool) -> Places:
        """Of times that all samples have in common, by the `ends` `(steps, 2)` of all steps, or of the first ones."""
        later, sign = ts[1:], -1.0 if ts[-1] < ts[0] else 1.0
        t0, t1 = ends.T
        step = np.searchsorted(sign * t1, sign * later)
        index = np.arange(1, len(ts))
        if stepping_onto:  # a time that repeats ends a step of no length
            step = step + index - 1 - np.searchsorted(sign * later, sign * later)
            return cls(Placed(step + 1, index, None), _inside(tableau, *(index[:0],) * 5))
        is_last = index == len(ts) - 1
        inside = step[~is_last & (step < len(ends))]
        t0, h = t0[inside], (t1 - t0)[inside]
        theta = (later[: len(inside)] - t0) / np.where(h == 0, 1.0, h)
        states = Placed(step[is_last] + 1, index[is_last], None)
        return cls(states, _inside(tableau, inside, index[: len(inside)], None, theta, h))

    @classmethod
    def of_samples(cls, tableau: Tableau, steps: Sequence[Step], *, steps_onto_some: bool) -> Places:
        """Of times of each sample's own, by all steps, or the first ones.

        Unless one `steps_onto_some` of the times before the last ones, states are those at the end of the solve: a
        sample that has arrived stays where it is.
        """
        lists: list[list[Array]] = [[] for _ in range(8)]
        for n, step in enumerate(steps):
            ends, inside = step.ends, step.inside
            state = np.full(len(ends), n + 1 if steps_onto_some else len(steps))
            h = np.asarray(step.t1 - step.t0)[inside.sample]
            number = np.full(len(inside), n)
            columns = (state, ends.index, ends.sample, number, inside.index, inside.sample, inside.theta, h)
            for found, column in zip(lists, columns, strict=True):
                found.append(np.asarray(column))
        joined = [np.concatenate(found) if found else np.zeros(0, dtype=np.int64) for found in lists]
        return cls(Placed(*joined[:3]), _inside(tableau, *joined[3:]))


def _inside(tableau: Tableau, number: Array, index: Array, sample: Array | None, theta: Array, h: Array) -> Placed:
    if not len(number):
        return Placed(number, index, sample, np.zeros((0, tableau.num_stages + 1)))
    weights = np.ones((len(number), tableau.num_stages + 1))
    weights[:, 1:] = (h * tableau.dense_weights(theta)).T
    return Placed(number, index, sample, weights)
