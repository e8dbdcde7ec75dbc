"""Sparse identification of dynamics: of a library of terms the few that are needed, printed as equations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from node_cli.models.series.parts.library import Library
from node_cli.models.series.parts.ode_series import Dynamics, OdeSeries, Trajectory
from node_cli.models.series.parts.printing import joined
from node_cli.models.series.parts.units import InputUnits, Scaled, StateUnits, typical_sizes
from node_cli.ode.base import Solver
from node_cli.ode.checks import require_at_least
from node_cli.ode.gradients import Gradient
from node_cli.series import Units

FAR = 100.0  # typical sizes; no data are that far


class SparseDynamics(Dynamics):
    """dy/dt = coefficients times terms, for a state of channels in the user's units divided by their typical sizes.

    Each term is a product of the same, so a coefficient in the user's units is the trained one times a number. What is
    pruned stays 0. Beyond `FAR` typical sizes a variable counts as if it were there: products would else be infinite
    within a finite time, and no solve would end, as long as coefficients are wrong.
    """

    active: Tensor
    num_pruned: Tensor
    factor: Tensor

    def __init__(
        self,
        library: Library,
        channel_names: tuple[str, ...],
        units: StateUnits,
        inputs: InputUnits,
        time_name: str,
        *,
        l1: float,
        threshold: float,
        prune_at: list[float],
    ) -> None:
        super().__init__()
        self.library = library
        self.channel_names = channel_names
        self.units = units
        self.inputs = inputs
        self.time_name = time_name or "t"
        self.l1 = l1
        self.threshold = threshold
        self.prune_at = prune_at
        self.num_states = len(channel_names)
        shape = (len(channel_names), len(library.names))
        self.coefficients = nn.Parameter(torch.zeros(shape))
        self.register_buffer("active", torch.ones(shape, dtype=torch.bool))
        self.register_buffer("num_pruned", torch.zeros((), dtype=torch.int64))
        factor = [[1 / (rate * size) for size in library.sizes] for rate in units.rate.tolist()]
        self.register_buffer("factor", torch.tensor(factor), persistent=False)

    def forward(self, t: Tensor, y: Tensor, inputs: Tensor | None = None) -> Tensor:
        """See `Dynamics.forward`."""
        variables = (
            y if inputs is None else torch.cat([y, self.inputs(inputs) / self.library.size[y.shape[1] :]], dim=1)
        )
        terms: Tensor = self.library(variables.clamp(-FAR, FAR))
        return terms @ self._sparse().T

    def initial(self, values: Tensor, slopes: Tensor, extra: Tensor) -> Tensor:
        """See `Dynamics.initial`."""
        return self.units.raised(values) / self.units.size

    def values(self, y: Tensor) -> Tensor:
        """See `Dynamics.values`."""
        return self.units.values(y)

    def value_slopes(self, y: Tensor, dy: Tensor) -> Tensor:
        """See `Dynamics.value_slopes`."""
        return self.units.value_slopes(y, dy)

    def observed(self, y: Tensor, values: Tensor, mask: Tensor, slopes: Tensor) -> Tensor:
        """See `Dynamics.observed`."""
        return self.units.observed(y, values, mask)

    def penalty(self, trajectory: Trajectory | None) -> Tensor | None:
        """`l1` times the sum of the magnitudes of the trained coefficients."""
        return self.l1 * self._sparse().abs().sum() if self.l1 else None

    def prune(self, progress: float) -> None:
        """At each of `prune_at` coefficients below `threshold`, as they are trained, are left out for good."""
        due = sum(progress >= point for point in self.prune_at)
        if due > self.num_pruned.item():
            self.active &= self.coefficients.detach().abs() >= self.threshold
            self.num_pruned.fill_(due)

    def named_values(self) -> Mapping[str, Tensor]:
        """The coefficients in the user's units: `hare: hare lynx` is that of the term in dhare/dt; 0 if pruned."""
        values = self._sparse() * self.factor
        return {
            f"{channel}: {term}": values[i, j]
            for i, channel in enumerate(self.channel_names)
            for j, term in enumerate(self.library.names)
        }

    def equations(self) -> list[str]:
        """One line for each channel; terms whose coefficient is 0 are left out."""
        rows = (self._sparse() * self.factor).tolist()
        return [
            f"d{channel}/d{self.time_name} = {joined(row, self.library.names)}"
            for channel, row in zip(self.channel_names, rows, strict=True)
        ]

    def _sparse(self) -> Tensor:
        return torch.where(self.active, self.coefficients, 0.0)


class Sindy(OdeSeries):
    """Series `(n, T, C)` as solutions of dy/dt = a sparse sum of products of channels and inputs.

    The terms are all products of at most `degree` of them, and, if `trigonometric`, sines and cosines. Coefficients
    have an L1 penalty of weight `l1`; those below `threshold` are left out for good at each progress of the run, from
    0 to 1, in `prune_at`. Both see them for channels divided by their typical sizes, in scaled time, where those that
    matter are about 1.

    Raises:
        ValueError: a key is out of range.

    Source: Brunton, Proctor, Kutz 2016, *Discovering governing equations from data by sparse identification of
    nonlinear dynamical systems*, PNAS; here trained through the solve, not on slopes of noisy data.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        num_controls: int,
        num_statics: int,
        num_starts: int,
        num_segments: int,
        channel_names: tuple[str, ...],
        control_names: tuple[str, ...],
        static_names: tuple[str, ...],
        units: Units,
        time_name: str,
        control_scaling: Scaled | None,
        static_scaling: Scaled | None,
        solver: Solver,
        gradient: Gradient,
        degree: int,
        trigonometric: bool,
        l1: float,
        threshold: float,
        prune_at: list[float],
        start: str,
        encoder_width: int,
        controls_between: str,
    ) -> None:
        for key, value in (("l1", l1), ("threshold", threshold)):
            require_at_least(key, value, 0)
        if prune_at != sorted(set(prune_at)) or not all(0 < point < 1 for point in prune_at):
            raise ValueError(f"prune_at must be increasing numbers between 0 and 1, got {prune_at}")
        inputs = InputUnits((num_controls, control_scaling), (num_statics, static_scaling))
        sizes = typical_sizes(units)
        names = (*channel_names, *control_names, *static_names)
        library = Library(names, [*sizes, *inputs.typical_sizes()], degree=degree, trigonometric=trigonometric)
        super().__init__(
            SparseDynamics(
                library,
                channel_names,
                StateUnits(sizes, range(num_channels), units),
                inputs,
                time_name,
                l1=l1,
                threshold=threshold,
                prune_at=prune_at,
            ),
            solver=solver,
            gradient=gradient,
            num_channels=num_channels,
            num_starts=num_starts,
            num_segments=num_segments,
            num_controls=num_controls,
            num_statics=num_statics,
            start=start,
            encoder_width=encoder_width,
            controls_between=controls_between,
        )
        if not prune_at:
            self.unused = {**self.unused, "threshold": "with model.prune_at=[]: say when to prune"}
        if not threshold:
            self.unused = {**self.unused, "prune_at": "with model.threshold=0: set it above 0"}
