"""The path that drives a CDE: through what was read of a series, with its time as a channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from node_cli.models.sequences.reading import Reading
from node_cli.models.series.parts.history import History

HERMITE, LINEAR, RECTILINEAR = "hermite", "linear", "rectilinear"
CONTROLS_BETWEEN = (HERMITE, LINEAR, RECTILINEAR)


def points(read: Reading, *, counts: bool) -> Tensor:
    """What the path goes through at each time `(n, R, channels)`, of which there are `num_channels`.

    The time since reading began, the latest value seen of each channel (0 before the first), controls and statics, and,
    with `counts`, how often each channel was seen up to now. Nothing in them depends on what is read later.
    """
    rows = [
        read.gaps.cumsum(1)[..., None],
        History(read.times, read.values, read.mask).carried(),
        read.inputs,
        *([read.mask.to(read.values.dtype).cumsum(1)] if counts else []),
    ]
    return torch.cat(rows, dim=2)


def num_points_channels(num_channels: int, num_inputs: int, *, counts: bool) -> int:
    """How many numbers each of `points` is."""
    return 1 + num_channels * (1 + counts) + num_inputs


class Piece(NamedTuple):
    """A straight piece of the path, from `start` `(n, channels)` on by `rise`, as its parameter goes from 0 to 1."""

    start: Tensor
    rise: Tensor

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where the path is at `t`, and its slope, `(n, channels)` each."""
        return self.start + t.to(self.rise.dtype) * self.rise, self.rise


def straight_pieces(knots: Tensor, kind: str) -> Iterator[Piece]:
    """The straight pieces of the path through knots `(n, R, channels)`.

    `linear`: one between two knots, which looks ahead to the second. `rectilinear`: first the time goes on, then
    everything else moves, so that between two knots nothing is known of the second (Morrill et al. 2021).
    """
    for start, rise in zip(knots.unbind(1)[:-1], knots.diff(dim=1).unbind(1), strict=True):
        if kind == LINEAR:
            yield Piece(start, rise)
        else:
            later = torch.cat([rise[:, :1], torch.zeros_like(rise[:, 1:])], dim=1)
            yield Piece(start, later)
            yield Piece(start + later, rise - later)


class HermitePath(NamedTuple):
    """The cubic through knots at the parameters 0, ..., R - 1, whose slope at a knot is the step from the one before.

    Between two knots it looks ahead to the second; it depends on none that comes later. Its slope is continuous. A CDE
    depends on the curve alone, not on how fast the parameter follows it. Time as the parameter would make the slope
    huge after a short gap, and a long gap after it would multiply that; here every channel, time too, overshoots by at
    most 4/27 of its last step.

    Attributes:
        coefficients: `(n, R - 1, 3 channels)`, for each knot but the last: where the path is, its slope there, and by
            how much that changes up to the next one.

    Source: Morrill et al. 2021, *Neural Controlled Differential Equations for Online Prediction Tasks*,
    arXiv:2106.11028.
    """

    coefficients: Tensor

    @classmethod
    def through(cls, knots: Tensor) -> HermitePath:
        """That through `knots` `(n, R, channels)`, R at least 2."""
        end = knots.diff(dim=1)
        start = torch.cat([end[:, :1], end[:, :-1]], dim=1)
        return cls(torch.cat([knots[:, :-1], start, end - start], dim=2))

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where the path is at `t`, 0-dim or `(n, 1)`, and its slope, `(n, channels)` each."""
        t = t.reshape(-1, 1).expand(len(self.coefficients), 1)
        index = (t.ceil() - 1).clamp(min=0)  # at a knot: of the piece before it, where a shorter series stays
        theta = (t - index).to(self.coefficients.dtype)
        rows = torch.arange(len(index), device=index.device)
        place, slope, bend = self.coefficients[rows, index[:, 0].long()].chunk(3, dim=1)
        here = place + theta * (slope + theta * (2 - theta) * bend)
        return here, slope + theta * (4 - 3 * theta) * bend
