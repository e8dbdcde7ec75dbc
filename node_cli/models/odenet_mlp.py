"""An ODE-Net for point clouds: the points themselves are the state."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from node_cli.models.ode_stack import ZeroChannels, ode_stack
from node_cli.models.requirements import choose, require_points
from node_cli.models.time_layers import TimeLinear
from node_cli.ode.base import Solver
from node_cli.ode.checks import require_at_least
from node_cli.ode.gradients import Gradient

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "softplus": nn.Softplus}


class MlpField(nn.Module):
    """Vector field: a multilayer perceptron whose every linear layer sees the time."""

    def __init__(self, features: int, width: int, num_hidden_layers: int, activation: nn.Module) -> None:
        super().__init__()
        sizes = [features, *[width] * num_hidden_layers]
        self.hidden = nn.ModuleList(TimeLinear(*pair) for pair in pairwise(sizes))
        self.output = TimeLinear(width, features)
        self.activation = activation

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt at 0-dim `t`, of the shape of `y (batch, features)`."""
        for layer in self.hidden:
            y = self.activation(layer(t, y))
        dy: Tensor = self.output(t, y)
        return dy


class OdeNetMlp(nn.Module):
    """ODE-solve blocks on the points, then a linear head: `(batch, d)` -> logits `(batch, num_outputs)`.

    The head is linear, so the ODE has to make the classes linearly separable; without augmentation it cannot where
    one class surrounds another (Dupont et al. 2019).

    A `vector_field` of your own is called with the number of features of the state, once for each block; None: an
    `MlpField` of `width`, `num_hidden_layers` and `activation`, which say nothing else.

    Raises:
        ValueError: when a key is out of range, or the inputs are no points.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_outputs: int,
        solver: Solver,
        gradient: Gradient,
        vector_field: Callable[[int], nn.Module] | None = None,
        width: int,
        num_hidden_layers: int,
        activation: str,
        num_blocks: int,
        augment_dim: int,
        t0: float,
        t1: float,
        learn_times: bool,
    ) -> None:
        super().__init__()
        features = require_points(input_shape) + augment_dim
        require_at_least("width", width, 1)
        require_at_least("num_hidden_layers", num_hidden_layers, 1)
        activate = choose("activation", activation, ACTIVATIONS)()
        self.augment = ZeroChannels(augment_dim)
        self.blocks = ode_stack(
            lambda: vector_field(features) if vector_field else MlpField(features, width, num_hidden_layers, activate),
            solver,
            gradient,
            num_blocks=num_blocks,
            channels=features,
            t0=t0,
            t1=t1,
            learn_times=learn_times,
        )
        self.head = nn.Linear(features, num_outputs)

    def forward(self, points: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(self.blocks(self.augment(points)))
        return logits
