"""The small problems under diffrax, as its documentation trains: a jitted value and gradient of an equinox module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from torch import Tensor, nn

from benchmarks.engine.contender import Contender
from benchmarks.engine.problems import NUM_BATCHES, Problem

# Not DirectAdjoint: slower than checkpoints in every case, up to twenty times.
ADJOINTS: dict[str, Callable[[], Any]] = {
    "checkpoint": diffrax.RecursiveCheckpointAdjoint,
    "adjoint": diffrax.BacksolveAdjoint,
}


def plain(t: Any, y: Any, field: Any) -> Any:
    """A vector field whose weights are the argument of the solve, as BacksolveAdjoint needs it."""
    return field(t, y)


def as_array(tensor: Tensor) -> Any:
    """The same numbers where jax computes."""
    return jnp.asarray(tensor.detach().cpu().numpy())


class Evaluations:
    """Counts those of `field`, which is `plain` otherwise."""

    def __init__(self) -> None:
        self._seen: list[int] = []

    def field(self, t: Any, y: Any, field: Any) -> Any:
        """dy/dt."""
        jax.debug.callback(lambda: self._seen.append(1))
        return field(t, y)

    def of(self, solve: Callable[..., Any], *args: Any) -> int:
        """How many a compiled function makes; it is given `field` last."""
        self._seen.clear()
        jax.block_until_ready(solve(*args, self.field))
        jax.effects_barrier()
        return len(self._seen)


class Spiral(eqx.Module):
    """As `SpiralField`."""

    net: eqx.nn.MLP

    def __call__(self, t: Any, y: Any) -> Any:
        """dy/dt."""
        return jax.vmap(self.net)(y**3)


class Series(eqx.Module):
    """As `SeriesField`."""

    net: eqx.nn.MLP

    def __call__(self, t: Any, y: Any) -> Any:
        """dy/dt."""
        return jax.vmap(self.net)(y)


class Flow(eqx.Module):
    """As `FlowField`; the trace as in diffrax's example of a continuous normalizing flow."""

    net: eqx.nn.MLP

    def __call__(self, t: Any, y: Any) -> Any:
        """The velocity and minus the divergence."""

        def of_one(point: Any) -> Any:
            velocity, pull = jax.vjp(lambda x: self.net(jnp.append(x, t)), point)
            (jacobian,) = jax.vmap(pull)(jnp.eye(2))
            return jnp.append(velocity, -jnp.trace(jacobian))

        return jax.vmap(of_one)(y[:, :2])


FIELDS = {"spiral": Spiral, "lotka_volterra": Series, "ffjord": Flow}


def contender(problem: Problem, gradient: str) -> Contender:
    """One way to differentiate."""
    jax.config.update("jax_default_matmul_precision", "highest")  # on a GPU, float32 as torch has it
    model = FIELDS[problem.name](_perceptron(problem.field.net))
    starts, targets = ([as_array(x) for x in values] for values in (problem.starts, problem.targets))
    ts = as_array(problem.ts)
    evaluations = Evaluations()

    def states(model: Any, y0: Any, field: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri5(),
            ts[0],
            ts[-1],
            None,
            y0,
            model,
            saveat=diffrax.SaveAt(ts=ts),
            stepsize_controller=diffrax.PIDController(rtol=problem.tolerance, atol=problem.tolerance),
            adjoint=ADJOINTS[gradient](),
        ).ys

    def loss(model: Any, y0: Any, target: Any, field: Any) -> Any:
        return problem.loss(states(model, y0, field), target)

    solve, train = eqx.filter_jit(states), eqx.filter_jit(eqx.filter_value_and_grad(loss))

    def step(n: int) -> Any:
        return jax.block_until_ready(train(model, starts[n % NUM_BATCHES], targets[n % NUM_BATCHES], plain))

    def count(n: int) -> tuple[int, int]:
        y0, target = starts[n % NUM_BATCHES], targets[n % NUM_BATCHES]
        forward = evaluations.of(solve, model, y0)
        return forward, evaluations.of(train, model, y0, target) - forward

    def outcome() -> Any:
        return solve(model, starts[0], plain), _gradients(step(0)[1].net)

    return Contender(step, outcome, count)


def _perceptron(net: nn.Sequential) -> eqx.nn.MLP:
    """With the weights of the network."""
    linear = [layer for layer in net if isinstance(layer, nn.Linear)]
    sizes = (linear[0].in_features, linear[-1].out_features, linear[0].out_features, len(linear) - 1)
    mlp = eqx.nn.MLP(*sizes, activation=jnp.tanh, key=jax.random.PRNGKey(0))
    weights = [as_array(p) for layer in linear for p in (layer.weight, layer.bias)]
    return eqx.tree_at(_weights, mlp, weights)


def _weights(mlp: eqx.nn.MLP) -> list[Any]:
    return [p for layer in mlp.layers for p in (layer.weight, layer.bias)]


def _gradients(mlp: eqx.nn.MLP) -> dict[str, Any]:
    """By the names of our network."""
    names = [f"net.{2 * i}.{kind}" for i in range(len(mlp.layers)) for kind in ("weight", "bias")]
    return dict(zip(names, _weights(mlp), strict=True))
