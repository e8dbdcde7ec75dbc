"""How far a solve has come through its output times: all samples together, or each through its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.stepping import Outputs, Step
from node_cli.ode.tableaus import Array


@dataclass
class OutputTimes:
    """The times `ts` at which the state is asked for, and how far a solve has come through them: it is at `t`.

    With `stepping_onto` every output time ends a step, else only the last one does.
    """

    ts: list[float]
    stepping_onto: bool
    next: int = 1
    t: float = field(init=False)

    def __post_init__(self) -> None:
        self.t = self.ts[0]
        self._sign = math.copysign(1.0, self.ts[-1] - self.ts[0])

    @property
    def done(self) -> bool:
        """Whether every output has been reached."""
        return self.next == len(self.ts)

    @property
    def segment(self) -> tuple[int, int]:
        """Positions of the output times between which the steps are free."""
        return (self.next - 1, self.next) if self.stepping_onto else (0, len(self.ts) - 1)

    def step(self, t1: float, *, is_anchored: bool = False) -> Step:
        """The step to `t1`, where the solve is from now on; the next outputs that lie in the step count as reached."""
        t0, segment, first = self.t, self.segment, self.next
        target, self.t = segment[1], t1
        while self.next <= target and self._sign * (self.ts[self.next] - t1) <= 0:
            self.next += 1
        hits_target = self.next > target
        index = range(first, self.next - hits_target)
        theta = [(self.ts[i] - t0) / (t1 - t0) if t1 != t0 else 0.0 for i in index]
        return Step(t0, t1, Outputs([target] if hits_target else ()), Outputs(index, theta), segment, is_anchored)


@dataclass
class Samples:
    """How far each sample has come through its row of `ts` `(batch, times)`: it is at `t`, and has reached `last`.

    It goes on to the position `end`. With `stepping_onto` every output time ends a step, else only that one does.
    """

    ts: Array
    stepping_onto: bool
    device: torch.device
    t: Array = field(init=False)
    last: Array = field(init=False)
    end: Array = field(init=False)

    def __post_init__(self) -> None:
        self.t = self.ts[:, 0].copy()
        self.last = np.zeros(len(self.ts), dtype=np.int64)
        self.end = (self.ts != self.ts[:, -1:]).sum(1)
        self.span: Array = self.ts[:, -1] - self.ts[:, 0]

    @classmethod
    def of(cls, ts: list[float] | Array, y0: Tensor, *, stepping_onto: bool) -> Samples:
        """Those of a state, with rows of their own, or with one for all, to whose very end they go."""
        if not isinstance(ts, list):
            return cls(ts, stepping_onto, y0.device)
        samples = cls(np.tile(ts, (len(y0), 1)), stepping_onto, y0.device)
        samples.end = np.full(len(y0), len(ts) - 1)
        return samples

    @property
    def active(self) -> Array:
        """Who has not arrived."""
        active: Array = self.last < self.end
        return active

    @property
    def segment(self) -> tuple[Array, Array]:
        """Positions of the output times between which the steps are free."""
        if not self.stepping_onto:
            return np.zeros_like(self.end), self.end
        ahead = np.minimum(self.last + 1, self.end)
        return np.maximum(ahead - 1, 0), ahead

    @property
    def target(self) -> Array:
        """The time that a step aims at; where it is, of a sample that has arrived."""
        target: Array = np.where(self.active, self.ts[np.arange(len(self.ts)), self.segment[1]], self.t)
        return target

    def step(self, t1: Array, accepted: Array | None = None, *, is_anchored: bool = False) -> Step:
        """The step to `t1` of the samples that have it `accepted` (None: all), and have not arrived.

        The outputs that lie in it count as reached from now on.
        """
        t0, segment, position = self.t, self.segment, np.arange(self.ts.shape[1])
        moves = self.active if accepted is None else self.active & accepted
        is_next = (position > self.last[:, None]) & (position <= segment[1][:, None]) & moves[:, None]
        reached = is_next & (np.where(self.span < 0, -1.0, 1.0)[:, None] * (self.ts - t1[:, None]) <= 0)
        sample, index = np.nonzero(reached)
        theta = (self.ts[sample, index] - t0[sample]) / np.where(t1 == t0, 1.0, t1 - t0)[sample]
        is_end = index == segment[1][sample]
        ends, inside = (Outputs(index[part], theta[part], sample[part]) for part in (is_end, ~is_end))
        self.last = self.last + reached.sum(1)
        self.t = np.where(moves, t1, t0)
        moved = None if moves.all() else torch.from_numpy(moves).to(self.device)
        return Step(t0, t1, ends, inside, segment, is_anchored, moved)
