"""The multilayer perceptrons that models of series have in their vector fields."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from node_cli.models.odenet_mlp import ACTIVATIONS
from node_cli.models.requirements import choose
from node_cli.ode.checks import require_at_least


class Hidden(NamedTuple):
    """The hidden layers of a network: units of each, their number, and what is between layers."""

    width: int
    num_hidden_layers: int
    activation: str


def network(inputs: int, outputs: int, hidden: Hidden, *, has_bias: bool = True) -> nn.Sequential:
    """A multilayer perceptron: `(batch, inputs)` -> `(batch, outputs)`.

    `has_bias` is about the last layer.

    Raises:
        ValueError: a key is out of range.
    """
    width = hidden.width
    require_at_least("width", width, 1)
    require_at_least("num_hidden_layers", hidden.num_hidden_layers, 1)
    make = choose("activation", hidden.activation, ACTIVATIONS)
    layers: list[nn.Module] = []
    for pair in pairwise([inputs, *[width] * hidden.num_hidden_layers]):
        layers += [nn.Linear(*pair), make()]
    return nn.Sequential(*layers, nn.Linear(width, outputs, bias=has_bias))


class FieldNetwork(nn.Module):
    """A network of a state, of inputs if there are any, and of the time if that is asked for."""

    def __init__(self, num_states: int, num_inputs: int, outputs: int, hidden: Hidden, *, time_input: bool) -> None:
        super().__init__()
        self.time_input = time_input
        self.layers = network(num_states + num_inputs + time_input, outputs, hidden)

    def forward(self, t: Tensor, y: Tensor, inputs: Tensor | None = None) -> Tensor:
        """At `t` (0-dim or `(n, 1)`), `y` `(n, num_states)` and `inputs` `(n, num_inputs)`: `(n, outputs)`."""
        given = [y] if inputs is None else [y, inputs]
        if self.time_input:
            given.append(t.reshape(-1, 1).to(y.dtype).expand(len(y), 1))
        out: Tensor = self.layers(given[0] if len(given) == 1 else torch.cat(given, dim=1))
        return out


def require_smooth(activation: str) -> None:
    """Raises ValueError for an activation whose network has no second derivative."""
    if activation == "relu":
        raise ValueError("activation must be tanh or softplus where the field is a derivative of the network, got relu")


def refuse_inputs(model: str, num_controls: int, num_statics: int) -> None:
    """Raises ValueError for data with controls or statics, which the model would not use."""
    if num_controls or num_statics:
        raise ValueError(
            f"model={model} uses no controls and no statics, and the dataset has {num_controls} and {num_statics}: "
            "leave them out of it, or take model=neural_ode"
        )
