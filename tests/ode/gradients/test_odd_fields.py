"""Fields that hide tensors where none can be put in their place, or write to one buffer; batched gradients."""

from functools import cache

import pytest
import torch
from problems import times
from torch import nn
from torch.autograd.functional import hessian, jacobian

from node_cli.ode import odeint

pytestmark = pytest.mark.slow

GRADIENTS = pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
TOLERANCES = {"rtol": 1e-8, "atol": 1e-8}


def start():
    return torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)


class Swing(torch.autograd.Function):
    """sin(y) w"""

    @staticmethod
    def forward(ctx, y, w):
        ctx.save_for_backward(y, w)
        return torch.sin(y) * w

    @staticmethod
    def backward(ctx, grad):
        y, w = ctx.saved_tensors
        return grad * torch.cos(y) * w, (grad * torch.sin(y)).sum(0)


def field_of(kind, weight):
    before = weight * 2
    return {
        "function": lambda t, y: Swing.apply(y, weight * 2),
        "function, computed before": lambda t, y: Swing.apply(y, before),
        "solve": lambda t, y: inner(before, y, "direct"),
        "solve by adjoint": lambda t, y: inner(weight * 2, y, "adjoint"),
        "solve by adjoint, computed before": lambda t, y: inner(before, y, "adjoint"),
    }[kind]


def inner(weight, y, gradient):
    steps = {"method": "midpoint", "num_steps": 1}
    return odeint(lambda t, z: torch.tanh(z * weight), y, times(0, 0.1), gradient=gradient, **steps)[-1]


def grads_of(kind, gradient):
    weight, y0 = torch.tensor([0.5, 1.0, -0.7], dtype=torch.float64, requires_grad=True), start().requires_grad_()
    ys = odeint(field_of(kind, weight), y0, times(0, 1), gradient=gradient, **TOLERANCES)
    return torch.autograd.grad(ys.pow(2).sum(), (weight, y0))


@cache
def finite_differences(kind):
    """Of the weight, the same for all gradients."""

    def loss(weight):
        return odeint(field_of(kind, weight), start(), times(0, 1), **TOLERANCES)[-1].pow(2).sum()

    weight = torch.tensor([0.5, 1.0, -0.7], dtype=torch.float64)
    shifts = torch.eye(3, dtype=torch.float64) * 1e-5
    return torch.stack([loss(weight + shift) - loss(weight - shift) for shift in shifts]) / 2e-5


@GRADIENTS
@pytest.mark.parametrize("kind", ["function", "solve"])
def test_what_a_function_or_an_inner_solve_uses_has_its_gradient(kind, gradient):
    found, _ = grads_of(kind, gradient)
    torch.testing.assert_close(found, finite_differences(kind), rtol=1e-5, atol=1e-6)


@GRADIENTS
@pytest.mark.parametrize("kind", ["function, computed before", "solve by adjoint, computed before"])
def test_what_cannot_be_replaced_there_is_refused_with_what_to_do(kind, gradient):
    with pytest.raises(ValueError, match=r"compute (the|that) tensor in the vector field"):
        grads_of(kind, gradient)


@GRADIENTS
def test_a_field_that_returns_one_buffer_again_and_again(gradient):
    """Its slopes have no graph; the gradients of the times are those of the values that they had."""
    grads = []
    for out in (torch.zeros(2, 3, dtype=torch.float64), None):
        ts = times(0, 0.3, 1, requires_grad=True)

        def field(t, y, out=out):
            return y.detach() * 0.5 if out is None else out.copy_(y.detach()).mul_(0.5)

        odeint(field, start(), ts, gradient=gradient, method="rk4", num_steps=3).pow(2).sum().backward()
        grads.append(ts.grad)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=0)


def test_a_change_is_seen_behind_one_buffer():
    out, control = torch.zeros(2, 3, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    y0 = start().requires_grad_()
    ys = odeint(lambda t, y: out.copy_(y.detach()).mul_(control), y0, times(0, 1), gradient="adjoint")
    control.mul_(2)
    with pytest.raises(ValueError, match="the vector field has changed since the solve"):
        ys.sum().backward()


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_a_vectorised_jacobian_is_that_of_one_row_after_another(gradient, batching):
    net = nn.Linear(3, 3).double()

    def end(y0, ts):
        return odeint(lambda t, y: net(y).tanh() * t, y0, ts, gradient=gradient, batching=batching)[1:].sum(0)

    given = (start(), times(0, 0.4, 1))
    for found, expected in zip(jacobian(end, given, vectorize=True), jacobian(end, given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_vectorised_hessian_is_that_of_one_row_after_another():
    def loss(y0):
        return odeint(lambda t, y: y.sin(), y0, times(0, 1), **TOLERANCES)[-1].pow(3).sum()

    torch.testing.assert_close(hessian(loss, start(), vectorize=True), hessian(loss, start()), rtol=1e-12, atol=1e-14)


def test_adjoint_refuses_a_vectorised_jacobian():
    def end(y0):
        return odeint(lambda t, y: y.sin(), y0, times(0, 1), gradient="adjoint")[-1]

    with pytest.raises(ValueError, match=r'^gradient="adjoint" solves backwards for one vector at a time'):
        jacobian(end, start(), vectorize=True)


@GRADIENTS
@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.jacrev])
def test_transforms_around_a_solve_are_refused(transform, gradient):
    with pytest.raises(ValueError, match=r"^a solve cannot be inside a transform of torch\.func"):
        transform(lambda y0: odeint(lambda t, y: y.sin(), y0, times(0, 1), gradient=gradient))(start())
