"""What all models of series that are ODEs share: from a batch to a start state, a solve, and values again."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.models.ode_stack import ode_block
from node_cli.models.series.parts.history import History, put_back, starting_at
from node_cli.models.series.parts.inputs import BETWEEN, Inputs, Source
from node_cli.models.series.parts.start import Start
from node_cli.ode.base import Solver
from node_cli.ode.checks import require_choice
from node_cli.ode.gradients import Gradient
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.series import TIMES, VALUES, SeriesModel


class Trajectory(NamedTuple):
    """A solve: `times` `(n, T)`, `states` `(n, T, S)` and `inputs` `(n, T, k + s)` (None: there are none)."""

    times: Tensor
    states: Tensor
    inputs: Tensor | None


class Dynamics(nn.Module, ABC):
    """A vector field, and how its state `(n, num_states)` belongs to scaled values `(n, C)`.

    Attributes:
        num_states: S.
        num_extra: numbers that a start state needs besides values and their slopes.
        is_observed: whether the values at a time are the whole state.
        needs_trajectory: whether `penalty` needs one.
    """

    num_states: int
    num_extra: int = 0
    is_observed: bool = True
    needs_trajectory: bool = False

    @abstractmethod
    def forward(self, t: Tensor, y: Tensor, inputs: Tensor | None = None) -> Tensor:
        """dy/dt at scaled time `t` (0-dim or `(n, 1)`), state `y` `(n, S)` and `inputs` `(n, k + s)`."""

    @abstractmethod
    def initial(self, values: Tensor, slopes: Tensor, extra: Tensor) -> Tensor:
        """The state `(n, S)` at values and slopes `(n, C)`; `extra` `(n, num_extra)` is 0 unless learned or encoded."""

    @abstractmethod
    def values(self, y: Tensor) -> Tensor:
        """The values `(..., C)` of states `(..., S)`."""

    @abstractmethod
    def value_slopes(self, y: Tensor, dy: Tensor) -> Tensor:
        """How fast the values change `(..., C)` where states `(..., S)` change by `dy`."""

    @abstractmethod
    def observed(self, y: Tensor, values: Tensor, mask: Tensor, slopes: Tensor) -> Tensor:
        """The state `y` with what is seen of `values` in its place; `slopes` are between the latest two of each."""

    def penalty(self, trajectory: Trajectory | None) -> Tensor | None:
        """See `SeriesModel.penalty`."""
        return None

    def named_values(self) -> Mapping[str, Tensor]:
        """See `SeriesModel.named_values`."""
        return {}

    def equations(self) -> list[str]:
        """See `SeriesModel.equations`."""
        return []

    def energy(self, y: Tensor) -> Tensor | None:
        """What is conserved `(...)` at states `(..., S)`."""
        return None

    def prune(self, progress: float) -> None:
        """See `SeriesModel.prune`."""


class PlainDynamics(Dynamics):
    """Dynamics whose state begins with the values themselves; `num_extra` more numbers follow."""

    def __init__(self, num_channels: int, num_extra: int) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.num_extra = num_extra
        self.num_states = num_channels + num_extra
        self.is_observed = num_extra == 0

    def initial(self, values: Tensor, slopes: Tensor, extra: Tensor) -> Tensor:
        """Values, then the extra ones."""
        return torch.cat([values, extra], dim=1)

    def values(self, y: Tensor) -> Tensor:
        """The first ones."""
        return y[..., : self.num_channels]

    def value_slopes(self, y: Tensor, dy: Tensor) -> Tensor:
        """The first ones."""
        return dy[..., : self.num_channels]

    def observed(self, y: Tensor, values: Tensor, mask: Tensor, slopes: Tensor) -> Tensor:
        """The extra numbers stay."""
        return torch.cat([torch.where(mask, values, self.values(y)), y[:, self.num_channels :]], dim=1)


class OdeSeries(SeriesModel):
    """A model of series that solves `dynamics` from a start state."""

    def __init__(
        self,
        dynamics: Dynamics,
        *,
        solver: Solver,
        gradient: Gradient,
        num_channels: int,
        num_starts: int,
        num_segments: int,
        num_controls: int = 0,
        num_statics: int = 0,
        start: str,
        encoder_width: int,
        controls_between: str | None = None,
    ) -> None:
        super().__init__()
        require_choice("controls_between", controls_between or BETWEEN[0], BETWEEN)
        is_compiled = isinstance(solver, RungeKutta) and solver.is_compiled
        if num_controls + num_statics and is_compiled:
            raise ValueError(
                "solver.compile must be none or auto where a dataset has controls or statics: every batch has its own"
            )
        self.start = Start(
            start,
            num_channels=num_channels,
            num_extra=dynamics.num_extra,
            num_starts=num_starts,
            num_segments=num_segments,
            encoder_width=encoder_width,
        )
        self.block = ode_block(dynamics, solver, gradient, dynamics.num_states, t0=0.0, t1=1.0, learn_times=False)
        self.returns_seen = start == "last"
        self.learns_from_windows = start != "learned"
        self.controls_between = controls_between or BETWEEN[0]
        if start != "encoder":
            self.unused = {"encoder_width": f"with model.start={start}: set model.start=encoder"}
        if controls_between and not num_controls:
            self.unused = {**self.unused, "controls_between": "on data without controls: name them in dataset.controls"}
        self._trajectory = _Kept()

    @property
    def dynamics(self) -> Dynamics:
        """The vector field."""
        assert isinstance(self.block.vector_field, Dynamics)
        return self.block.vector_field

    def forward(self, batch: Batch) -> Tensor:
        """See `SeriesModel.forward`; before a trajectory starts, what was seen."""
        beginning = self.start(batch)
        state = self.dynamics.initial(beginning.values, beginning.slopes, beginning.extra)
        moves = self.returns_seen
        own = starting_at(batch, beginning.first) if moves else batch
        times, inputs = own[TIMES], self._inputs(own)
        states = self._solved(state, times) if inputs is None else self._driven(state, times, inputs)
        if self.dynamics.needs_trajectory and torch.is_grad_enabled():
            self._trajectory.value = Trajectory(times, states, None if inputs is None else inputs.at_times())
        values = self.dynamics.values(states)
        return put_back(values, History.of(batch).carried(), beginning.first) if moves else values

    def one_step(self, batch: Batch) -> Tensor:
        """See `SeriesModel.one_step`; solved from time to time, what is seen at a time replaces what was predicted."""
        history, inputs = History.of(batch), self._inputs(batch)
        is_padding = torch.zeros_like(history.mask)
        is_padding[:, 1:] = (history.times.diff(dim=1) <= 0)[..., None]
        is_whole = self.dynamics.is_observed and inputs is None and bool((history.mask | is_padding).all())
        if is_whole and isinstance(self.block.solver, RungeKutta):
            return self._from_each(history)
        values, mask, slopes = history.values, history.mask, history.slopes()
        extra = values.new_zeros(len(values), self.dynamics.num_extra)
        state = self.dynamics.initial(values[:, 0], slopes[:, 0], extra)
        rows = [torch.full_like(values[:, 0], math.nan)]
        for i in range(values.shape[1] - 1):
            source = None if inputs is None else inputs.source(i)
            state = self._piece(state, history.times[:, i : i + 2], source)[:, 1]
            rows.append(self.dynamics.values(state))
            state = self.dynamics.observed(state, values[:, i + 1], mask[:, i + 1], slopes[:, i + 1])
        return torch.stack(rows, dim=1)

    def _from_each(self, history: History) -> Tensor:
        """All steps in one solve, where every state was seen."""
        values, times = history.values, history.times
        starts = values[:, :-1].flatten(0, 1)
        state = self.dynamics.initial(starts, torch.zeros_like(starts), starts[:, :0])
        pairs = torch.stack([times[:, :-1], times[:, 1:]], dim=2).flatten(0, 1)
        ends = self.dynamics.values(self.block.solve(state, pairs).ys[1]).view_as(values[:, 1:])
        return torch.cat([torch.full_like(values[:, :1], math.nan), ends], dim=1)

    def slopes(self, batch: Batch) -> Tensor | None:
        """See `SeriesModel.slopes`."""
        if not self.dynamics.is_observed:
            return None
        states, dynamics, inputs = self._states(batch), self.dynamics, self._inputs(batch)
        times = batch[TIMES].reshape(-1, 1).to(states.dtype)
        driven = None if inputs is None else inputs.at_times().flatten(0, 1)
        dy = dynamics(times, states.flatten(0, 1), driven).view(states.shape)
        return dynamics.value_slopes(states, dy)

    def penalty(self) -> Tensor | None:
        """See `SeriesModel.penalty`; of the last forward pass with a graph."""
        trajectory, self._trajectory.value = self._trajectory.value, None
        return self.dynamics.penalty(trajectory)

    def named_values(self) -> Mapping[str, Tensor]:
        """See `SeriesModel.named_values`."""
        return self.dynamics.named_values()

    def equations(self) -> list[str]:
        """See `SeriesModel.equations`."""
        return self.dynamics.equations()

    def energy(self, batch: Batch) -> Tensor | None:
        """See `SeriesModel.energy`."""
        return self.dynamics.energy(self._states(batch)) if self.dynamics.is_observed else None

    def prune(self, progress: float) -> None:
        """See `SeriesModel.prune`."""
        self.dynamics.prune(progress)

    def _inputs(self, batch: Batch) -> Inputs | None:
        return Inputs.of(batch, self.controls_between)

    def _states(self, batch: Batch) -> Tensor:
        """The states `(n, T, S)` at the values of a batch, where these are whole states."""
        values = batch[VALUES]
        flat = values.flatten(0, 1)
        return self.dynamics.initial(flat, torch.zeros_like(flat), flat[:, :0]).view(*values.shape[:2], -1)

    def _driven(self, state: Tensor, times: Tensor, inputs: Inputs) -> Tensor:
        """The solve, begun anew wherever the inputs jump: a step must not reach across."""
        rows = [state[:, None]]
        for first, last, source in inputs.pieces():
            rows.append(self._piece(rows[-1][:, -1], times[:, first : last + 1], source)[:, 1:])
        return torch.cat(rows, dim=1)

    def _piece(self, state: Tensor, times: Tensor, source: Source | None) -> Tensor:
        """As `_solved`, in time since the first one: short pieces of long series need its resolution near 0."""
        if source is None and self.block.is_compiled(state):  # for one vector field alone
            return self._solved(state, times)
        start = times[:, :1]
        return self._solved(state, times - start, _Piece(self.block.vector_field, source, start))

    def _solved(self, state: Tensor, times: Tensor, field: nn.Module | None = None) -> Tensor:
        """The states `(n, T, S)` at the times `(n, T)` of each sample, from `state` `(n, S)` at the first."""
        if times.shape[1] == 1:
            return state[:, None]
        return self.block.solve(state, self.block.joined(times), field).ys.transpose(0, 1)


class _Piece(nn.Module):
    """Dynamics with the inputs of one batch, in the time since `start` `(n, 1)`. A module: its parameters are seen."""

    def __init__(self, dynamics: nn.Module, source: Source | None, start: Tensor) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.source = source
        self.start = start

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        time = (self.start + t).to(t.dtype)
        dy: Tensor = self.dynamics(time, y) if self.source is None else self.dynamics(time, y, self.source(time))
        return dy


class _Kept:
    """Holds what has a graph; a copy of its model does not take it along."""

    def __init__(self) -> None:
        self.value: Trajectory | None = None

    def __deepcopy__(self, memo: Any) -> _Kept:
        return _Kept()
