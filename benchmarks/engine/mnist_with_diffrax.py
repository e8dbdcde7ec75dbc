"""The network of torchdiffeq's `examples/odenet_mnist.py` under diffrax and equinox."""

from __future__ import annotations

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.engine.contender import Contender
from benchmarks.engine.networks import TOLERANCE, PeerNet
from benchmarks.engine.problems import NUM_BATCHES
from benchmarks.engine.with_diffrax import ADJOINTS, Evaluations, as_array, plain


class Layer(eqx.Module):
    """A convolution, a group norm (as many groups as 32 allows) or a linear layer: what the weights say."""

    weight: Any
    bias: Any

    @classmethod
    def of(cls, layer: nn.Module) -> Layer:
        """With the weights of a layer of torch."""
        return cls(*(as_array(p) for p in (layer.weight, layer.bias)))

    def conv(self, y: Any, stride: int, padding: int) -> Any:
        """Convolution."""
        out = jax.lax.conv_general_dilated(y, self.weight, (stride, stride), [(padding, padding)] * 2)
        return out + self.bias[:, None, None]

    def norm(self, y: Any) -> Any:
        """Group norm."""
        groups = y.reshape(len(y), min(32, y.shape[1]), -1)
        mean, variance = groups.mean(-1, keepdims=True), groups.var(-1, keepdims=True)
        normal = ((groups - mean) / jnp.sqrt(variance + 1e-5)).reshape(y.shape)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


class Field(eqx.Module):
    """As `ConcatField`."""

    norms: list[Layer]
    convs: list[Layer]

    def __call__(self, t: Any, y: Any) -> Any:
        """dy/dt."""
        for norm, conv in zip(self.norms[:2], self.convs, strict=True):
            y = jax.nn.relu(norm.norm(y))
            y = conv.conv(jnp.concatenate([jnp.full_like(y[:, :1], t), y], 1), 1, 1)
        return self.norms[2].norm(y)


class Net(eqx.Module):
    """Stem, field and head."""

    stem: list[Layer]
    field: Field
    head: list[Layer]

    @classmethod
    def of(cls, net: PeerNet) -> Net:
        """With its weights."""
        stem, head = ([*map(Layer.of, _with_weights(part))] for part in (net.stem, net.head))
        return cls(stem, Field([*map(Layer.of, net.field.norms)], [*map(Layer.of, net.field.convs)]), head)

    def start(self, images: Any) -> Any:
        """Of the solve."""
        first, *others = self.stem
        y = first.conv(images, 1, 0)
        for norm, conv in zip(others[::2], others[1::2], strict=True):
            y = conv.conv(jax.nn.relu(norm.norm(y)), 2, 1)
        return y

    def loss(self, y: Any, labels: Any) -> Any:
        """Cross-entropy from where the solve ended."""
        norm, linear = self.head
        logits = jax.nn.relu(norm.norm(y)).mean((2, 3)) @ linear.weight.T + linear.bias
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


def contender(net: PeerNet, batches: list[tuple[Tensor, Tensor]], gradient: str) -> Contender:
    """One way to differentiate."""
    model = Net.of(net)
    data = [(as_array(images), as_array(labels)) for images, labels in batches]
    evaluations = Evaluations()

    def solution(model: Net, images: Any, field: Any) -> Any:
        return diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Dopri5(),
            0.0,
            1.0,
            None,
            model.start(images),
            model.field,
            stepsize_controller=diffrax.PIDController(rtol=TOLERANCE, atol=TOLERANCE),
            adjoint=ADJOINTS[gradient](),
        ).ys[-1]

    def loss(model: Net, images: Any, labels: Any, field: Any) -> Any:
        y = solution(model, images, field)
        return model.loss(y, labels), y

    solve, train = eqx.filter_jit(solution), eqx.filter_jit(eqx.filter_value_and_grad(loss, has_aux=True))

    def step(n: int) -> Any:
        return jax.block_until_ready(train(model, *data[n % NUM_BATCHES], plain))

    def count(n: int) -> tuple[int, int]:
        images, labels = data[n % NUM_BATCHES]
        forward = evaluations.of(solve, model, images)
        return forward, evaluations.of(train, model, images, labels) - forward

    def outcome() -> Any:
        (_, y), grads = step(0)
        given = [*grads.stem, *grads.field.norms, *grads.field.convs, *grads.head]
        for layer, grad in zip(_layers(net), given, strict=True):
            layer.weight.grad, layer.bias.grad = (torch.tensor(np.asarray(x)) for x in (grad.weight, grad.bias))
        return y, net.gradients()

    return Contender(step, outcome, count)


def _layers(net: PeerNet) -> list[nn.Module]:
    return [*_with_weights(net.stem), *net.field.norms, *net.field.convs, *_with_weights(net.head)]


def _with_weights(part: nn.Module) -> list[nn.Module]:
    return [layer for layer in part.modules() if isinstance(layer, (nn.Conv2d, nn.GroupNorm, nn.Linear))]
