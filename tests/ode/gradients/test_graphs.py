"""Gradients in the company of the rest of autograd: backward twice, hooks, accumulation, autocast, other shapes."""

import math

import pytest
import torch
from gradient_checks import (
    EXACT,
    FORWARD,
    GRADIENTS,
    adaptive,
    assert_close,
    assert_same,
    exact_grads,
    fixed,
    loss_of,
    run,
    solve,
    start,
    tight,
)
from parts import METHODS, make_gradient, make_solver, names
from problems import Wave, times
from torch import nn
from torchdiffeq import odeint

from node_cli import ode

HARD = adaptive(rtol=1e-4, atol=1e-4, first_step=5.0)
PER_SAMPLE = adaptive(rtol=1e-4, atol=1e-4, first_step=5.0, batching="per_sample")
SOLVERS = pytest.mark.parametrize("solver", [fixed(num_steps=2), HARD, PER_SAMPLE], ids=["grid", "joint", "per sample"])


@SOLVERS
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_second_backward_pass_over_the_same_graph_gives_the_same(gradient, solver):
    field, y0, ts = Wave(), start(), times(*FORWARD, requires_grad=True)
    inputs = {"y0": y0, "ts": ts, **dict(field.named_parameters())}
    loss = loss_of(solve(gradient, solver, field, y0, ts).ys)
    first, second = (
        dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values()), retain_graph=True), strict=True))
        for _ in range(2)
    )
    assert_same(second, first)
    loss.backward()
    assert_same({name: tensor.grad for name, tensor in inputs.items()}, first)
    with pytest.raises(RuntimeError, match=r"^Trying to backward through the graph a second time"):
        loss.backward()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_two_losses_of_one_solve_add_up(gradient):
    def grads(backwards):
        field, y0 = Wave(), start()
        ys = solve(gradient, fixed("dopri5", num_steps=2), field, y0, times(*FORWARD)).ys
        backwards(ys)
        return {"y0": y0.grad, **{name: p.grad for name, p in field.named_parameters()}}

    def one_by_one(ys):
        ys[1].sum().backward(retain_graph=True)
        ys[3].square().sum().backward()

    both = grads(lambda ys: (ys[1].sum() + ys[3].square().sum()).backward())
    assert_close(grads(one_by_one), both, rtol=1e-13)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_two_solves_add_to_the_same_parameters(gradient):
    alone = run(gradient, HARD).grads
    field, y0 = Wave(), start()
    for _ in range(2):
        loss_of(solve(gradient, HARD, field, y0, times(*FORWARD)).ys).backward()
    found = {"y0": y0.grad, **{name: p.grad for name, p in field.named_parameters()}}
    expected = {name: 2 * alone[name] for name in found}
    assert_close(found, expected, rtol=1e-4 if gradient == "adjoint" else 1e-14)  # learned times are solved for too


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_solve_may_follow_another(gradient):
    """The start of the second solve is the end of the first: together they are one."""
    field, y0 = Wave(), start()
    middle = solve(gradient, tight(), field, y0, times(0.0, 0.6)).ys[-1]
    middle.retain_grad()
    solve(gradient, tight(), field, middle, times(0.6, 1.5)).ys[-1].square().sum().backward()
    whole, y0_whole = Wave(), start()
    ys = solve(gradient, tight(), whole, y0_whole, times(0.0, 0.6, 1.5)).ys
    ys[-1].square().sum().backward()
    assert middle.grad.abs().sum() > 0
    torch.testing.assert_close(y0.grad, y0_whole.grad, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(field.out.weight.grad, whole.out.weight.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_hook_of_the_start_changes_its_gradient_once(gradient):
    plain = run(gradient, HARD).grads["y0"]
    y0 = start()
    y0.register_hook(lambda grad: 2 * grad)
    loss_of(solve(gradient, HARD, Wave(), y0, times(*FORWARD, requires_grad=True)).ys).backward()
    assert torch.equal(y0.grad, 2 * plain)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_hook_after_accumulation_fires_once_for_each_parameter(gradient):
    field, seen = Wave(), []
    for parameter in field.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    solve(gradient, HARD, field, start(), times(*FORWARD)).ys.sum().backward()
    assert sorted(grad.norm() for grad in seen) == sorted(p.grad.norm() for p in field.parameters())


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_hook_of_a_parameter_changes_its_gradient_once(gradient):
    plain = run(gradient, HARD).grads["out.weight"]
    field, seen = Wave(), []
    field.out.weight.register_hook(lambda grad: seen.append(grad) or 2 * grad)
    loss_of(solve(gradient, HARD, field, start(), times(*FORWARD, requires_grad=True)).ys).backward()
    assert len(seen) == 1
    assert torch.equal(field.out.weight.grad, 2 * plain)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_parameter_that_was_changed_before_the_backward_pass_is_refused(gradient):
    field = Wave()
    ys = solve(gradient, fixed(num_steps=2), field, start(), times(0, 1)).ys
    with torch.no_grad():
        field.out.weight.mul_(2)
    with pytest.raises(RuntimeError, match=r"has been modified by an inplace operation"):
        ys.sum().backward()


@pytest.mark.parametrize("backward_inside", [False, True], ids=["backward outside", "backward inside"])
@SOLVERS
def test_checkpoint_equals_direct_bit_for_bit_under_autocast(solver, backward_inside):
    def grads(gradient):
        field, y0, ts = Wave(dtype=torch.float32), start(torch.float32), times(*FORWARD, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(solve(gradient, solver, field, y0, ts).ys)
            if backward_inside:
                loss.backward()
        if not backward_inside:
            loss.backward()
        return {"y0": y0.grad, "ts": ts.grad, **{name: p.grad for name, p in field.named_parameters()}}

    direct = grads("direct")
    assert all(grad.dtype == torch.float32 for name, grad in direct.items() if name != "ts")
    assert_same(grads("checkpoint"), direct)
    assert not torch.equal(direct["out.weight"], run("direct", solver, dtype=torch.float32).grads["out.weight"])


@pytest.mark.parametrize("gradient", EXACT)
def test_float32_states_have_gradients_of_float32_and_times_of_their_own(gradient):
    for dtype in (torch.float32, torch.float64):
        ts = torch.tensor(FORWARD, dtype=dtype, requires_grad=True)
        y0 = start(torch.float32)
        solve(gradient, HARD, Wave(dtype=torch.float32), y0, ts).ys.sum().backward()
        assert (y0.grad.dtype, ts.grad.dtype) == (torch.float32, dtype)
        assert ts.grad.isfinite().all()


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_gradient_is_finite_where_state_and_slope_are_zero(name, gradient):
    field = Wave()
    for parameter in field.out.parameters():
        nn.init.zeros_(parameter)
    y0 = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    solve(gradient, make_solver(name), field, y0, times(0, 1)).ys[-1].sum().backward()
    torch.testing.assert_close(y0.grad, torch.ones_like(y0))
    assert all(parameter.grad.isfinite().all() for parameter in field.parameters())


STATES = {
    "channels last": torch.linspace(-1, 2, 48).double().view(2, 2, 3, 4).to(memory_format=torch.channels_last),
    "transposed": torch.linspace(-1, 2, 12).double().view(3, 4).t(),
    "expanded": torch.linspace(-1, 2, 4).double().expand(3, 4),
    "vector": torch.linspace(-1, 2, 5).double(),
    "batch of one": torch.tensor([[0.7]]).double(),
}


@SOLVERS
@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("y0", STATES.values(), ids=STATES)
def test_states_of_any_shape_and_layout(y0, gradient, solver):
    def grads(y0):
        w, ts = torch.tensor(0.8, dtype=torch.float64, requires_grad=True), times(*FORWARD, requires_grad=True)
        y0 = y0.detach().requires_grad_()
        mixed = y0.dim() > 1  # within a sample
        ys = solve(gradient, solver, lambda t, y: torch.sin(w * y + t) + (y.flip(-1) if mixed else y) / 2, y0, ts).ys
        return torch.autograd.grad(loss_of(ys.contiguous()), (y0, w, ts))

    for one, other in zip(grads(y0), grads(y0.clone(memory_format=torch.contiguous_format)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_zero_dimensional_state(gradient):
    y0 = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    ode.odeint(lambda t, y: -y, y0, times(0, 1), gradient=gradient)[-1].backward()
    assert y0.grad.item() == pytest.approx(math.exp(-1), rel=1e-6)


class Density(nn.Module):
    """A flow with its log-density, whose rate is minus the divergence (continuous normalizing flows)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.flow = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)).double()

    def forward(self, t, state):
        x, _ = state
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            dx = self.flow(x) * (1 + t)
            columns = [torch.autograd.grad(dx[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2)]
        return dx, -sum(columns)


def oscillators(t, state):
    (x, v), scale = state[:2], state[2]
    return v * scale.sum(), -x.sin() * (1 + t), torch.cos(scale)


def tuple_grads(ys_of, field, parts):
    parts = tuple(part.clone().requires_grad_() for part in parts)
    ys = ys_of(field, parts)
    parameters = tuple(field.parameters()) if isinstance(field, nn.Module) else ()
    return torch.autograd.grad(sum(loss_of(part) for part in ys), (*parts, *parameters))


FLOW = (torch.tensor([[0.3, -0.4], [1.0, 0.8]]).double(), torch.zeros(2).double())
SWING = (torch.tensor([[0.3, -0.4]]).double(), torch.tensor([[1.0, 0.8]]).double(), torch.full((2, 1, 2), 0.3).double())


@pytest.mark.parametrize(
    ("field", "parts", "gradient"),
    [
        *((oscillators, SWING, gradient) for gradient in GRADIENTS),
        *((Density(), FLOW, gradient) for gradient in GRADIENTS),
    ],
)
def test_tuple_states_and_fields_that_differentiate_have_the_gradient_of_torchdiffeq(field, parts, gradient):
    ts = times(0.0, 0.4, 1.0)
    if gradient == "adjoint":
        ours = {"method": "dopri8", "rtol": 1e-11, "atol": 1e-11}
        theirs = {**ours, "options": {"step_t": ts[1:]}}
    else:
        ours, theirs = {"method": "rk4_38", "num_steps": 1}, {"method": "rk4"}
    found = tuple_grads(lambda field, y0: ode.solve(field, y0, ts, gradient=gradient, **ours).ys, field, parts)
    expected = tuple_grads(lambda field, y0: odeint(field, y0, ts, **theirs), field, parts)
    rtol = 1e-8 if gradient == "adjoint" else 1e-12
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=rtol)


def test_checkpoint_equals_direct_for_fields_that_differentiate():
    def grads(gradient):
        return tuple_grads(
            lambda field, y0: ode.solve(field, y0, times(0, 1), gradient=gradient, rtol=1e-5, atol=1e-5).ys,
            Density(),
            FLOW,
        )

    for one, other in zip(grads("checkpoint"), grads("direct"), strict=True):
        assert torch.equal(one, other)


NO_RERUN = (
    'gradient="checkpoint" runs steps again, and a solve by {} does not record any: '
    'take method="dopri5" or gradient="adjoint"'
)
REFUSALS = {
    ("scipy", "direct"): 'gradient="direct" cannot differentiate a solve by Scipy, which runs outside autograd: '
    'take gradient="adjoint"',
    ("scipy", "checkpoint"): NO_RERUN.format("Scipy"),
    ("torchdiffeq", "checkpoint"): NO_RERUN.format("Torchdiffeq"),
}


@pytest.mark.parametrize("gradient", names("gradient"))
@pytest.mark.parametrize("name", METHODS)
def test_every_solver_goes_with_every_gradient_or_is_refused(name, gradient):
    solver = make_solver(name)
    if (name, gradient) in REFUSALS:
        with pytest.raises(ValueError) as error:
            make_gradient(gradient).check(solver)
        assert str(error.value) == REFUSALS[name, gradient]
        return

    ts = (0.0, 0.4, 1.0)
    assert_close(run(gradient, solver, ts).grads, exact_grads(ts), rtol=0.3 if name == "euler" else 0.05)
