"""The multilayer perceptron that models of series have in their vector fields."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from node_cli.models.odenet_mlp import ACTIVATIONS
from node_cli.models.requirements import choose
from node_cli.ode.checks import require_at_least


def network(inputs: int, outputs: int, *, width: int, num_hidden_layers: int, activation: str) -> nn.Sequential:
    """Linear layers with `activation` between them: `(batch, inputs)` -> `(batch, outputs)`.

    Raises:
        ValueError: a key is out of range.
    """
    require_at_least("width", width, 1)
    require_at_least("num_hidden_layers", num_hidden_layers, 1)
    make = choose("activation", activation, ACTIVATIONS)
    layers: list[nn.Module] = []
    for pair in pairwise([inputs, *[width] * num_hidden_layers]):
        layers += [nn.Linear(*pair), make()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))
