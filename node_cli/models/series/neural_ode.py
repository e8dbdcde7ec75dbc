"""A neural ODE of series: the observed channels, and perhaps some more numbers, are the state."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from node_cli.models.series.parts.networks import network
from node_cli.models.series.parts.ode_series import OdeSeries, PlainDynamics
from node_cli.ode.base import Solver
from node_cli.ode.checks import require_at_least
from node_cli.ode.gradients import Gradient


class NeuralDynamics(PlainDynamics):
    """A vector field of one's own, or a network of the state, the inputs and, if asked, the time.

    A vector field of one's own is called with `(t, y)`; where there are inputs, with `(t, y, inputs)`.
    """

    def __init__(
        self, field: nn.Module, num_channels: int, num_extra: int, *, is_network: bool, time_input: bool
    ) -> None:
        super().__init__(num_channels, num_extra)
        self.field = field
        self.is_network = is_network
        self.time_input = time_input

    def forward(self, t: Tensor, y: Tensor, inputs: Tensor | None = None) -> Tensor:
        """See `Dynamics.forward`."""
        given = [] if inputs is None else [inputs]
        if self.is_network:
            time = [t.reshape(-1, 1).to(y.dtype).expand(len(y), 1)] if self.time_input else []
            dy: Tensor = self.field(torch.cat([y, *given, *time], dim=1))
        else:
            dy = self.field(t, y, *given)
        return dy


class NeuralOde(OdeSeries):
    """Series `(n, T, C)` as solutions of dy/dt = f(y, controls, statics, t), with f a multilayer perceptron.

    `augment_dim` numbers are added to the state, 0 at first, or from the encoder (Dupont et al. 2019). A
    `vector_field` of one's own is called with the number of channels of the state; None: a network of `width`,
    `num_hidden_layers` and `activation`, which say nothing else.

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
        num_series: int,
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
        if vector_field is None:
            sizes = {"width": width, "num_hidden_layers": num_hidden_layers}
            field: nn.Module = network(num_states + num_inputs + time_input, num_states, activation=activation, **sizes)
        else:
            field = vector_field(num_states)
        super().__init__(
            NeuralDynamics(field, num_channels, augment_dim, is_network=vector_field is None, time_input=time_input),
            solver=solver,
            gradient=gradient,
            num_channels=num_channels,
            num_series=num_series,
            num_segments=num_segments,
            has_inputs=num_inputs > 0,
            start=start,
            encoder_width=encoder_width,
            controls_between=controls_between,
        )
