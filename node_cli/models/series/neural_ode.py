"""A neural ODE of series: the observed channels, and perhaps some more numbers, are the state."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from node_cli.models.series.parts.networks import FieldNetwork, Hidden
from node_cli.models.series.parts.ode_series import OdeSeries, PlainDynamics
from node_cli.ode.base import Solver
from node_cli.ode.checks import require_at_least
from node_cli.ode.gradients import Gradient


class NeuralDynamics(PlainDynamics):
    """Any module as the vector field: called with `(t, y)`, or, where there are inputs, with `(t, y, inputs)`."""

    def __init__(self, field: nn.Module, num_channels: int, num_extra: int) -> None:
        super().__init__(num_channels, num_extra)
        self.field = field

    def forward(self, t: Tensor, y: Tensor, inputs: Tensor | None = None) -> Tensor:
        """See `Dynamics.forward`."""
        dy: Tensor = self.field(t, y) if inputs is None else self.field(t, y, inputs)
        return dy


class NeuralOde(OdeSeries):
    """Series `(n, T, C)` as solutions of dy/dt = f(y, controls, statics, t), with f a multilayer perceptron.

    `augment_dim` numbers are added to the state, 0 at first, or learned or encoded as the start is (Dupont et al.
    2019). A `vector_field` of one's own is called with the number of channels of the state; None: a network of
    `width`, `num_hidden_layers`, `activation` and `time_input`, which say nothing else.

    Raises:
        ValueError: a key is out of range.

    Source: Chen et al. 2018, *Neural Ordinary Differential Equations*, NeurIPS.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        num_controls: int,
        num_statics: int,
        num_starts: int,
        num_segments: int,
        solver: Solver,
        gradient: Gradient,
        vector_field: Callable[[int], nn.Module] | None = None,
        width: int,
        num_hidden_layers: int,
        activation: str,
        time_input: bool,
        augment_dim: int,
        start: str,
        encoder_width: int,
        controls_between: str,
    ) -> None:
        require_at_least("augment_dim", augment_dim, 0)
        num_states, num_inputs = num_channels + augment_dim, num_controls + num_statics
        field = (
            vector_field(num_states)
            if vector_field
            else FieldNetwork(
                num_states, num_inputs, num_states, Hidden(width, num_hidden_layers, activation), time_input=time_input
            )
        )
        super().__init__(
            NeuralDynamics(field, num_channels, augment_dim),
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
        if vector_field is not None:
            own = ("width", "num_hidden_layers", "activation", "time_input")
            self.unused = {**self.unused, **dict.fromkeys(own, "with a vector_field of your own: set its own keys")}
