"""Second derivatives are exact through `direct`, and refused elsewhere."""

import pytest
import torch
from gradient_checks import FORWARD, adaptive, fixed, in_one_vector, loss_of, run, solve, start
from problems import Growth, Wave, times
from torchdiffeq import odeint

REFUSED = 'second derivatives (create_graph=True) need gradient="direct": the other gradients have none'
SOLVERS = {
    "grid": fixed("rk4", num_steps=2),
    "grid fsal": fixed("bosh3", step_size=0.4),
    "interpolated": adaptive(rtol=1e3, atol=1e3, first_step=1.0),
    "stepped onto": adaptive("heun", rtol=1e3, atol=1e3, first_step=0.4, outputs="step"),
    "interpolated, no stage shared": adaptive("heun", rtol=1e3, atol=1e3, first_step=1.0),
    "per sample": adaptive("bosh3", rtol=1e3, atol=1e3, first_step=1.0, batching="per_sample"),
}


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_direct_has_the_second_derivatives_of_the_discrete_solution(solver):
    y0 = times(0.4, -0.2, 0.8, 1.0).view(2, 2)
    of_vector, vector = in_one_vector(
        lambda field, y0, ts: solve("direct", solver, field, y0, ts).ys,
        y0,
        times(*FORWARD, requires_grad=True),
        Wave(width=2),
    )
    assert torch.autograd.gradgradcheck(of_vector, vector, eps=1e-5, atol=1e-7, rtol=1e-6, fast_mode=True)


@pytest.mark.parametrize("solver", [fixed(num_steps=100), adaptive(rtol=1e-10, atol=1e-10)], ids=["rk4", "dopri5"])
def test_the_hessian_of_exponential_growth_has_its_closed_form(solver):
    y1 = torch.tensor(0.5, dtype=torch.float64).item()
    field = Growth(0.8)

    def last(alpha, z0, t1):
        ts = torch.stack([torch.zeros_like(t1), t1])
        return solve("direct", solver, lambda t, z: alpha * z, z0[None], ts).ys[-1, 0]

    alpha, z0, t1 = (torch.tensor(value, dtype=torch.float64) for value in (field.alpha.item(), y1, 1.3))
    hessian = torch.tensor(torch.autograd.functional.hessian(last, (alpha, z0, t1)))
    z1, a, t = (z0 * torch.exp(alpha * t1)).item(), alpha.item(), t1.item()
    expected = [
        [t * t * z1, t * z1 / y1, (1 + a * t) * z1],
        [t * z1 / y1, 0.0, a * z1 / y1],
        [(1 + a * t) * z1, a * z1 / y1, a * a * z1],
    ]
    torch.testing.assert_close(hessian, torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-8)


def test_a_gradient_penalty_has_the_gradient_of_torchdiffeq():
    ts = times(0.0, 0.4, 1.0)

    def penalty(ys_of):
        field, y0 = Wave(), start()
        ys = ys_of(field, y0)
        (slope,) = torch.autograd.grad(loss_of(ys), y0, create_graph=True)
        (ys[-1].sum() + (slope.norm(dim=1) - 1).square().sum()).backward()
        return {"y0": y0.grad, **{name: parameter.grad for name, parameter in field.named_parameters()}}

    found = penalty(lambda field, y0: solve("direct", fixed("rk4_38", num_steps=1), field, y0, ts).ys)
    expected = penalty(lambda field, y0: odeint(field, y0, ts, method="rk4"))
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-12, atol=1e-12)


def test_first_derivatives_with_a_graph_are_those_without():
    solver = adaptive(rtol=1e-4, atol=1e-4, first_step=5.0, batching="per_sample")
    without = run("direct", solver)
    field, y0, ts = Wave(), start(), times(*FORWARD, requires_grad=True)
    inputs = {"y0": y0, "ts": ts, **dict(field.named_parameters())}
    ys = solve("direct", solver, field, y0, ts).ys
    grads = torch.autograd.grad(loss_of(ys), list(inputs.values()), create_graph=True)
    for name, grad in zip(inputs, grads, strict=True):
        torch.testing.assert_close(grad, without.grads[name], rtol=1e-12, atol=1e-12)


def conditioned(same):
    x = start()
    y0 = x if same else x.sin()
    context = x if same else y0 * y0
    return x, y0, lambda t, y: torch.tanh(y * context)


@pytest.mark.parametrize("same", [True, False], ids=["start itself", "computed from start"])
def test_a_vector_field_that_knows_the_start_counts_no_path_twice(same):
    def grad(create_graph):
        x, y0, field = conditioned(same)
        ys = solve("direct", fixed(num_steps=2), field, y0, times(0, 1)).ys
        return torch.autograd.grad(loss_of(ys), x, create_graph=create_graph)[0]

    torch.testing.assert_close(grad(True), grad(False), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_the_others_refuse_second_derivatives(gradient):
    y0 = start()
    ys = solve(gradient, fixed(num_steps=2), Wave(), y0, times(0, 1)).ys
    with pytest.raises(RuntimeError) as error:
        torch.autograd.grad(ys.sum(), y0, create_graph=True)
    assert str(error.value) == REFUSED
