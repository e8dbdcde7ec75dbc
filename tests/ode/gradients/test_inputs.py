"""Gradients reach every tensor that a vector field uses, however it came by it, or the solve is refused."""

import pytest
import torch
from gradient_checks import FORWARD, GRADIENTS, assert_close, fixed, loss_of, run, solve, start, tight
from problems import Wave, times
from torch import nn
from torchdiffeq import odeint

REFUSED = (
    "the vector field uses a tensor with gradient, of shape (3,), that its first evaluation did not use: "
    "make it a parameter of the module, use it (times zero) at every time, or, where it was used to compute "
    "a tensor before the solve, compute that tensor in the vector field"
)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def closure():
    w = random(3)
    return {"w": w}, lambda t, y: torch.tanh(w * y), start()


def attribute():
    field = Wave()
    field.shift = random(3)
    forward = field.forward
    field.forward = lambda t, y: forward(t, y) + field.shift
    return {"shift": field.shift, **dict(field.named_parameters())}, field, start()


def encoder():
    """Results of an encoder, whose own parameters get gradients: the start, and what the vector field is told."""
    torch.manual_seed(0)
    network, x = nn.Linear(2, 6, dtype=torch.float64), random(3, 2)
    y0, context = network(x).chunk(2, 1)
    return {"x": x, **dict(network.named_parameters())}, lambda t, y: torch.sin(y * context), y0


def used_twice():
    w = random(3, 3)
    return {"w": w}, lambda t, y: torch.tanh(y @ w) @ w.t() + w[0], start()


def views():
    whole = random(6)
    first, second = whole[:3], whole[3:]
    return {"whole": whole}, lambda t, y: torch.tanh(first * y) * second, start()


def two_that_share_their_gradient():
    w, u = random(3, 3), random(3, 3, seed=1)
    return {"w": w, "u": u}, lambda t, y: torch.tanh(y) + (w + u), start()


def expanded():
    w = random(1)
    wide = w.expand(3, 3)
    return {"w": w}, lambda t, y: torch.tanh(wide * y), start()


def same_tensor_as_start():
    w = random(3, 3)
    return {"w": w}, lambda t, y: torch.tanh(w * y), w


def computed_from_start():
    x = random(3, 3)
    y0 = x.sin()
    return {"x": x}, lambda t, y, z=y0 * y0: torch.tanh(y * z), y0


def computed_from_closure():
    w = random(3)
    return {"w": w}, lambda t, y, z=w * w: torch.tanh(w * y + z), start()


def view_of_closure():
    w = random(6)
    return {"w": w}, lambda t, y, z=w[:3]: torch.tanh(w[3:] * y + z), start()


def time_alone():
    w = random(3)
    return {"w": w}, lambda t, y: (w * t.exp()).expand(3, 3), start()


def state_alone():
    y0 = start()
    return {"y0": y0}, lambda t, y: y * y.sin(), y0


def state_itself():
    y0 = start()
    return {"y0": y0}, lambda t, y: y, y0


def constant():
    y0, c = start(), torch.full((3, 3), 0.7, dtype=torch.float64)
    return {"y0": y0}, lambda t, y: c, y0


def learned_constant():
    w = random(3, 3)
    return {"w": w}, lambda t, y: w, start()


def in_a_function_transform():
    w = random(3, 3)

    def field(t, y):
        jacobian = torch.func.vmap(torch.func.jacrev(lambda y: torch.tanh(y @ w)))(y)
        return torch.tanh(y @ w) + jacobian.sum(-1)

    return {"w": w}, field, start()


CASES = [closure, attribute, encoder, used_twice, two_that_share_their_gradient, views, expanded]
CASES += [same_tensor_as_start, computed_from_start, computed_from_closure, view_of_closure, time_alone, state_alone]
CASES += [state_itself, constant, learned_constant, in_a_function_transform]


def every_case():
    for case in CASES:
        for gradient in GRADIENTS:
            yield pytest.param(case, gradient, id=f"{case.__name__}-{gradient}")


TS = times(0.0, 0.4, 1.0)
ON_A_GRID = (fixed("rk4_38", num_steps=1), {"method": "rk4"}, 1e-12)  # both take the same step between two outputs
TIGHT = (tight(), {"method": "dopri8", "rtol": 1e-11, "atol": 1e-11, "options": {"step_t": TS[1:]}}, 1e-8)


@pytest.mark.parametrize(("case", "gradient"), [*every_case()])
def test_every_tensor_has_the_gradient_of_torchdiffeq(case, gradient):
    solver, theirs, rtol = TIGHT if gradient == "adjoint" else ON_A_GRID

    def grads(ys_of):
        inputs, field, y0 = case()
        return torch.autograd.grad(loss_of(ys_of(field, y0)), list(inputs.values()))

    found = grads(lambda field, y0: solve(gradient, solver, field, y0, TS).ys)
    expected = grads(lambda field, y0: odeint(field, y0, TS, **theirs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_parameter_without_effect_has_a_gradient_of_zero_or_none(gradient):
    field = Wave()
    field.idle = nn.Parameter(random(2))
    y0 = start()
    solve(gradient, tight(), field, y0, TS).ys.sum().backward()
    assert field.idle.grad is None or not field.idle.grad.any()
    assert y0.grad.all()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_what_needs_no_gradient_gets_none_and_changes_none(gradient):
    full = run(gradient, tight("dopri5", 1e-8))
    field, y0, ts = Wave(), start(requires_grad=False), times(*FORWARD)
    field.hidden.requires_grad_(False)
    loss_of(solve(gradient, tight("dopri5", 1e-8), field, y0, ts).ys).backward()
    assert (y0.grad, ts.grad, field.hidden.weight.grad, field.hidden.bias.grad) == (None,) * 4
    rtol = 1e-5 if gradient == "adjoint" else 1e-14  # its steps depend on what is solved for
    for name, parameter in field.out.named_parameters(prefix="out"):
        torch.testing.assert_close(parameter.grad, full.grads[name], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("wanted", ["y0", "ts", "parameters"])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_one_kind_of_input_alone_has_its_gradient(gradient, wanted):
    full = run(gradient, fixed("dopri5", num_steps=2))
    field, y0, ts = Wave(), start(requires_grad=wanted == "y0"), times(*FORWARD, requires_grad=wanted == "ts")
    field.requires_grad_(wanted == "parameters")
    inputs = {"y0": y0, "ts": ts, **dict(field.named_parameters())}
    loss_of(solve(gradient, fixed("dopri5", num_steps=2), field, y0, ts).ys).backward()
    found = {name: tensor.grad for name, tensor in inputs.items() if tensor.grad is not None}
    names = [wanted] if wanted != "parameters" else list(dict(field.named_parameters()))
    assert_close(found, {name: full.grads[name] for name in names}, rtol=1e-14)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_without_grad_mode_or_gradients_there_is_no_graph(gradient):
    solver, field, y0 = tight("dopri5", 1e-5), Wave(), start()
    with torch.no_grad():
        ys = solve(gradient, solver, field, y0, times(*FORWARD, requires_grad=True)).ys
    with torch.inference_mode():
        inferred = solve(gradient, solver, field, y0, times(*FORWARD)).ys
    frozen = solve(gradient, solver, field.requires_grad_(False), y0.detach(), times(*FORWARD)).ys
    assert [states.requires_grad for states in (ys, inferred, frozen)] == [False] * 3
    assert [torch.equal(states, ys) for states in (inferred, frozen)] == [True] * 2


class Later(nn.Module):
    """Uses `extra` only when half the time is over."""

    def __init__(self, extra, *, returned=False):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.extra, self.returned = [extra], returned  # in a list, so that it is no parameter

    def forward(self, t, y):
        (extra,) = self.extra
        if t < 0.5:
            return self.scale * y
        return extra if self.returned else extra * y


@pytest.mark.parametrize("extra", [lambda: random(3), lambda: random(3).exp()], ids=["leaf", "result"])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_tensor_that_is_used_only_later_is_refused(gradient, extra):
    ys = solve(gradient, fixed(num_steps=2), Later(extra()), start(requires_grad=False), times(0, 1)).ys
    with pytest.raises(ValueError) as error:
        ys.sum().backward()
    assert str(error.value) == REFUSED


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_tensor_that_is_used_only_inside_a_step_is_refused(gradient):
    w, extra = random(3), random(3)
    ys = solve(
        gradient,
        fixed(num_steps=1),
        lambda t, y: w * y * (extra if 0.4 < t < 0.6 else 1),
        start(requires_grad=False),
        times(0, 1),
    ).ys
    with pytest.raises(ValueError) as error:
        ys.sum().backward()
    assert str(error.value) == REFUSED


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_parameter_that_is_used_only_later_has_its_gradient(gradient):
    extra = nn.Parameter(random(3).detach())
    field = Later(extra)
    field.registered = extra
    solve(gradient, fixed(num_steps=2), field, start(), times(0, 1)).ys.sum().backward()
    assert extra.grad.all()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_tensor_that_is_returned_only_later_is_refused(gradient):
    ys = solve(gradient, fixed(num_steps=2), Later(random(3, 3), returned=True), start(), times(0, 1)).ys
    with pytest.raises(ValueError, match=r"^the vector field uses a tensor with gradient, of shape \(3, 3\), that "):
        ys.sum().backward()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_only_tensor_with_gradient_is_found_even_if_it_is_used_only_later(gradient):
    extra = random(3)
    field = Later(extra).requires_grad_(False)
    solve(gradient, fixed(num_steps=2), field, start(requires_grad=False), times(0, 1)).ys.sum().backward()
    assert extra.grad.all()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_parameter_that_is_frozen_after_the_solve_is_refused(gradient):
    field = Wave()
    ys = solve(gradient, fixed(num_steps=2), field, start(), times(0, 1)).ys
    field.requires_grad_(False)
    with pytest.raises(
        ValueError, match=r"^a tensor of shape .* was frozen after the solve \(requires_grad_\(False\)\)"
    ):
        ys.sum().backward()
