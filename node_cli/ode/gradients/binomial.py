"""Going backwards through the states of a solve when not all of them can be kept: binomial checkpointing.

From a kept state, later ones are made by running steps again. How few of those suffice with a given number of kept
states is known: Griewank and Walther 2000, "Algorithm 799: revolve", ACM Trans. Math. Softw. 26(1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch import Tensor

Advance = Callable[[int, Tensor], Tensor]  # the number of a step and its state: the state after it


class ThinnedStates:
    """The states that steps start from, no more than `limit` of them while a solve is under way.

    How many steps will come is not known, so every state is kept at first, then every second one, every fourth, ...
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._stride = 1
        self._count = 0
        self._kept: dict[int, Tensor] = {}

    def append(self, y: Tensor) -> None:
        """The state that the next step starts from."""
        if self._count % self._stride == 0:
            if len(self._kept) == self._limit:
                self._stride *= 2
                self._kept = {n: state for n, state in self._kept.items() if n % self._stride == 0}
            if self._count % self._stride == 0:
                self._kept[self._count] = y
        self._count += 1

    def backwards(self, advance: Advance) -> Iterator[tuple[int, Tensor]]:
        """All steps from the last to the first, each with its state."""
        end = self._count
        limit = self._limit or self._count
        for i, (n, y) in reversed(list(enumerate(self._kept.items()))):
            yield from backwards(n, y, end, limit - 1 - i, advance)
            end = n


def backwards(start: int, y: Tensor, end: int, slots: int, advance: Advance) -> Iterator[tuple[int, Tensor]]:
    """The steps `end - 1` down to `start`, from the state `y` of the latter, with `slots` more states to keep."""
    while end - start > 1:
        middle, state = start + split(end - start, slots), y
        for n in range(start, middle):
            state = advance(n, state)
        yield from backwards(middle, state, end, max(slots - 1, 0), advance)
        end = middle
    yield start, y


def split(length: int, slots: int) -> int:
    """After how many of `length` steps the next state is kept, so that the fewest steps are run again.

    With s states in all, steps that are run at most t times each reach binomial(s + t, t) far. Without a slot the next
    state is that of the last step, and none is kept for long.
    """
    if slots == 0:
        return length - 1
    times = 1
    while _reach(slots + 1, times) < length:
        times += 1
    return max(1, length - _reach(slots, times), _reach(slots + 1, times - 2))


def _reach(states: int, times: int) -> int:
    return math.comb(states + times, times) if times >= 0 else 0
