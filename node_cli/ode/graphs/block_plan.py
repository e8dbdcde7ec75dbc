"""What the blocks of one method have in common: the step, and the part of each step in the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from node_cli.ode.graphs.copying import Repeated
from node_cli.ode.graphs.examples import Examples
from node_cli.ode.graphs.lowering import NotWhole
from node_cli.ode.graphs.places import dense_weights, weighted_sum
from node_cli.ode.graphs.remembered import key_of, recall, remember
from node_cli.ode.graphs.split_step import SplitStep
from node_cli.ode.states import as_column
from node_cli.ode.stepping import Slope, plain_stages
from node_cli.ode.tableaus import Tableau

MOST_BYTES = 2**20  # that are kept of a step by a processor: more leaves its cache, and a second run is as fast
# Both ends of a step, its state and slope: the state after it, the stages, and what is kept for the gradient.
TakeStep = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, list[Tensor], list[Tensor]]]


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockPlan:
    """A method and a vector field, and how outputs are made.

    `has_outputs` says whether there are any but the first and the last one; `interpolates`, whether they are
    interpolated. Then steps leave behind rows (see `places.py`), and have cotangents of them; or, with `adds_up`, they
    leave behind a sum `(times, *y.shape)`, their part of the outputs, and have the cotangents of all outputs.
    """

    examples: Examples
    tableau: Tableau
    has_outputs: bool
    interpolates: bool
    adds_up: bool

    @property
    def has_weights(self) -> bool:
        """Whether the blocks weight rows to make outputs, at times that all samples have in common."""
        return self.interpolates and not self.examples.by_sample

    @property
    def num_rows(self) -> int:
        """Of a step: its state, and the stages if outputs are interpolated."""
        return 1 + self.interpolates * self.tableau.num_stages

    @property
    def description(self) -> str:
        """What blocks depend on beside the vector field, the same in all processes."""
        kinds = self.examples.by_sample, self.has_outputs, self.interpolates, self.adds_up
        return f"{self.tableau} {kinds}"

    @property
    def num_kept(self) -> int | None:
        """How many tensors are kept of a step, so that its gradient needs no second run of it; None: it is run again.

        That is where a second run is as fast, or the step cannot be split.
        """
        return self._kept[0]

    @property
    def digest(self) -> str:
        """Of the graphs that keep it; blocks with another one have nothing to do with these."""
        return self._kept[1]

    @cached_property
    def _kept(self) -> tuple[int | None, str]:
        """Both, as an earlier process has noted them, if one has."""
        if self.examples.by_sample:
            return None, ""
        noted = recall(self._key)
        number, digest = noted.get("number"), noted.get("digest")
        if isinstance(digest, str) and isinstance(number, int | None):
            return number, digest
        return self._note()

    def _note(self) -> tuple[int | None, str]:
        split = self._split
        if split is None:
            return None, ""
        is_too_much = self.examples.field.y.device.type == "cpu" and split.num_bytes > MOST_BYTES
        number, digest = None if is_too_much else split.num_kept, split.digest
        remember(self._key, {"number": number, "digest": digest})
        return number, digest

    @cached_property
    def _key(self) -> str | None:
        return key_of(self.examples.field, f"what is kept of a step {self.description}")

    @cached_property
    def _split(self) -> SplitStep | None:
        try:
            return SplitStep(self.examples, self.tableau, has_rows=self.interpolates)
        except NotWhole:
            return None

    @property
    def split_step(self) -> SplitStep:
        """A step that keeps what its gradient needs.

        Raises:
            NotWhole: it is not the one of the blocks that an earlier process has compiled; later ones take this one.
        """
        split = self._split
        if split is None or split.digest != self.digest:
            self._note()
            raise NotWhole("what is kept of a step is not what an earlier process has kept")
        return split

    def field(self, inputs: Sequence[Tensor], *, keeps: bool = False) -> tuple[TakeStep, Slope]:
        """A step, and the slope, at times as the blocks have them."""
        slope = self.examples.field.slope(inputs)
        plain = plain_stages(self.tableau, slope)

        def take_step(t0: Tensor, t1: Tensor, y: Tensor, dy: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
            if keeps:
                return self.split_step.forward(t0, t1, y, dy, inputs)
            return *plain(as_column(t0, y), as_column(t1, y), y, dy), []

        return take_step, lambda t, y: slope(as_column(t, y).to(y.dtype), y)

    def left_behind(
        self, rows: list[list[Tensor]], weights: list[Tensor], y: Tensor, has_arrived: Tensor | None
    ) -> list[Tensor]:
        """Of all steps up to the state `y`, for the outputs: the sum, or rows and weights, in a tensor each."""
        if self.adds_up:
            assert has_arrived is not None
            total = weighted_sum(torch.cat(weights, 1), [row for own in rows for row in own])
            number = torch.arange(total.shape[0], device=y.device)
            is_last = as_column((number == total.shape[0] - 1) & has_arrived, total)
            return [torch.where(is_last, y, total)]
        axis = int(self.examples.by_sample)
        stacked = [torch.stack([torch.stack(own, axis) for own in rows])] if self.interpolates else []
        return [*stacked, torch.stack(weights, 1)] if weights else stacked

    def grad_rows(self, of_outputs: Sequence[Tensor]) -> Callable[[int, Tensor], list[Tensor]]:
        """What makes the cotangents of the rows of step n with these ends, if there are any."""
        if not self.adds_up:
            axis = int(self.examples.by_sample)
            return lambda n, ends: [each for rows in of_outputs for each in rows[n].unbind(axis)]
        grad_ys, ts = of_outputs

        @Repeated
        def weighted(ends: Tensor) -> list[Tensor]:
            t0, t1 = ends.unbind()
            weights = self.weights(ts, t0, t1, True).to(grad_ys.dtype)
            return [(as_column(column, grad_ys) * grad_ys).sum(0) for column in weights.unbind(1)]

        return lambda n, ends: weighted(ends)

    def weights(self, ts: Tensor, t0: Tensor, t1: Tensor, is_kept: Tensor | bool) -> Tensor:
        """Of the rows of a step in the outputs."""
        return dense_weights(self.tableau, ts, t0, t1, is_kept, with_first=self.adds_up)

    def error(self, h: Tensor, stages: Sequence[Tensor]) -> Tensor:
        """Estimate of a step's."""
        weights = self.tableau.error_weights
        assert weights is not None
        weighted = [w * k for w, k in zip(weights, stages, strict=True) if w]
        error: Tensor = h.to(stages[0].dtype) * sum(weighted[1:], weighted[0])
        return error

    def like_outputs(self, num_steps: int) -> list[Tensor]:
        """Stand-ins for the cotangents of what the steps leave behind, and all times where `grad_rows` needs them."""
        like = self.examples
        if self.adds_up:
            times = like.times()
            return [like.like_y([times.shape[0], *like.field.y.shape]), times]
        return [like.rows(num_steps, self.num_rows)] if self.has_outputs else []
