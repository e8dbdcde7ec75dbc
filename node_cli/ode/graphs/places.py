"""Where the outputs of a solve lie among its steps, and what is computed for them in many steps at once.

A step that outputs are interpolated in has rows, its state and its stages: `(rows, ...)`, or `(batch, rows, ...)` where
each sample has a time of its own. An output is a weighted sum of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.stepping import Step
from node_cli.ode.tableaus import Array, Tableau, polynomial

MOST_NUMBERS = 2**20  # of rows and states that are kept for the outputs at once


def groups(num_steps: int, size: int, *, of: int = 1) -> Iterator[tuple[int, int]]:
    """First step and the one after the last, of as many steps as may be kept, each of this `size`; a multiple `of`."""
    most = max(1, MOST_NUMBERS // (size * of)) * of
    for first in range(0, num_steps, most):
        yield first, min(first + most, num_steps)


def dense_weights(
    tableau: Tableau, ts: Tensor, t0: Tensor, t1: Tensor, is_kept: Tensor | bool, *, with_first: bool
) -> Tensor:
    """`(times, rows)`: of a step's state and stages in the outputs; 0 outside it.

    The last output is a state, with weights of 0, and so is the first one, but `with_first`.
    """
    sign, number, h = torch.sign(ts[-1] - ts[0]), torch.arange(ts.shape[0], device=ts.device), t1 - t0
    is_after = (sign * (ts - t0) > 0) | ((ts == t0) & (t0 == ts[0]))
    is_inside = is_after & (sign * (ts - t1) <= 0) & (number < ts.shape[0] - 1) & is_kept
    if not with_first:
        is_inside = is_inside & (number > 0)
    theta = torch.where(is_inside, (ts - t0) / torch.where(h == 0, 1.0, h), 0)
    of_stages = [h * theta * polynomial(row, theta) for row in tableau.dense or ()]
    return torch.where(is_inside[:, None], torch.stack([torch.ones_like(theta), *of_stages], 1), 0)


def weighted_sum(weights: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """`(times, *y.shape)`; written out, so that the compiler makes one loop of it."""
    columns = [weights[:, i].view(-1, *(1,) * rows[0].dim()) for i in range(len(rows))]
    terms = [column * row for column, row in zip(columns, rows, strict=True)]
    total: Tensor = sum(terms[1:], terms[0])
    return total


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
        if first == 0 and (not len(self.number) or self.number[-1] < last):
            return self
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


class Places(ABC):
    """The outputs of a solve but the first one, which it starts from: how they depend on its steps."""

    @abstractmethod
    def grad_end(self, grad_ys: Tensor) -> Tensor:
        """The cotangent of the last state, by those of all outputs."""

    @abstractmethod
    def grad_rows(self, grad_ys: Tensor, first: int, shape: list[int]) -> Tensor:
        """The cotangents of the rows of steps from `first` on, of this shape; those after the last step are 0."""


@dataclass(frozen=True, eq=False)
class WeightedPlaces(Places):
    """Of times that all samples have in common, by the `weights` `(times, steps, rows)`; the last output is a state."""

    weights: Tensor

    def grad_end(self, grad_ys: Tensor) -> Tensor:
        """See `Places`."""
        return grad_ys[-1]

    def grad_rows(self, grad_ys: Tensor, first: int, shape: list[int]) -> Tensor:
        """See `Places`."""
        num_steps = self.weights.shape[1]
        count = min(shape[0], num_steps - first)
        weights = self.weights if count == num_steps else self.weights[:, first : first + count]
        rows = torch.mm(weights.flatten(1).t(), grad_ys.view(len(grad_ys), -1)).view(count, *shape[1:])
        return rows if count == shape[0] else torch.cat([rows, rows.new_zeros(shape[0] - count, *shape[1:])])


@dataclass(frozen=True, eq=False)
class ListedPlaces(Places):
    """One by one: those that are `states`, and those `inside` steps."""

    states: Placed
    inside: Placed

    def grad_end(self, grad_ys: Tensor) -> Tensor:
        """See `Places`."""
        states = self.states
        if states.sample is None:
            return grad_ys[-1]
        part = states.between(states.number[-1], states.number[-1] + 1)
        samples = torch.from_numpy(part.sample).to(grad_ys.device)
        return torch.zeros_like(grad_ys[0]).index_add_(0, samples, grad_ys[part.place()])

    def grad_rows(self, grad_ys: Tensor, first: int, shape: list[int]) -> Tensor:
        """See `Places`."""
        rows = grad_ys.new_zeros(shape)
        last = min(first + len(rows), self.states.number[-1])
        for placed in (self.states, self.inside):
            placed.between(first, last).add_cotangents(rows, grad_ys)
        return rows

    @classmethod
    def at_ends(cls, tableau: Tableau, ts: Array, ends: Array) -> ListedPlaces:
        """Of times that all samples have in common, each of which ends one of the steps with these `ends`.

        A time that repeats ends a step of no length.
        """
        index = np.arange(1, len(ts))
        rising, rising_ends = (ts[1:], ends[:, 1]) if ts[-1] >= ts[0] else (-ts[1:], -ends[:, 1])
        step = np.searchsorted(rising_ends, rising) + index - 1 - np.searchsorted(rising, rising)
        return cls(Placed(step + 1, index, None), _inside(tableau, *(index[:0],) * 5))

    @classmethod
    def of_samples(cls, tableau: Tableau, steps: Sequence[Step], *, steps_onto_some: bool) -> ListedPlaces:
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
