"""Under bfloat16 autocast the vector field computes in bfloat16, the state stays float32."""

import gc
import weakref

import pytest
import torch
from parts import make_gradient, make_solver
from problems import Wave, times

from node_cli.ode import odeint
from node_cli.ode.solution import FirstSteps

GRADIENTS = pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])


class Watched(Wave):
    """Records the dtypes of the state that comes and of the slope that goes."""

    def __init__(self):
        super().__init__(dtype=torch.float32)
        self.seen = set()

    def forward(self, t, y):
        dy = super().forward(t, y)
        self.seen.add((t.dtype, y.dtype, dy.dtype))
        return dy


def solve(name, gradient, enabled=True, backward_inside=False, **keys):
    field = Watched()
    y0 = torch.linspace(-1, 1, 12).reshape(4, 3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        solution = make_gradient(gradient).solve(make_solver(name, **keys), field, y0, times(0, 0.5, 1), FirstSteps())
        if backward_inside:
            (solution.ys**2).sum().backward()
    if not backward_inside:
        (solution.ys**2).sum().backward()
    return field, solution, {"y0": y0.grad, **{name: p.grad for name, p in field.named_parameters()}}


@GRADIENTS
@pytest.mark.parametrize("name", ["dopri5", "rk4", "dopri8"])
def test_state_stays_float32_and_every_parameter_has_a_gradient(name, gradient):
    field, solution, gradients = solve(name, gradient)
    assert field.seen == {(torch.float32, torch.float32, torch.bfloat16)}
    assert solution.ys.dtype == torch.float32
    for grad in gradients.values():
        assert grad.dtype == torch.float32
        assert grad.abs().sum() > 0


@pytest.mark.parametrize("backward_inside", [False, True], ids=["backward outside", "backward inside"])
@GRADIENTS
def test_gradients_are_those_of_float32_to_the_accuracy_of_bfloat16(gradient, backward_inside):
    _, _, found = solve("rk4", gradient, backward_inside=backward_inside)
    _, _, expected = solve("rk4", "direct", enabled=False)
    for name, grad in expected.items():
        assert (found[name] - grad).norm() < 0.03 * grad.norm(), name
        assert not torch.equal(found[name], grad)


@GRADIENTS
def test_no_weight_without_a_graph_is_left_in_autocasts_cache(gradient):
    field = Watched()
    with torch.autocast("cpu", torch.bfloat16):
        make_gradient(gradient).solve(make_solver("rk4"), field, torch.ones(4, 3), times(0, 1), FirstSteps())
        field(torch.tensor(0.0), torch.ones(4, 3)).sum().backward()
    assert field.hidden.weight.grad.abs().sum() > 0


def test_samples_with_times_of_their_own_stay_float32_too():
    field, solution, gradients = solve("dopri5", "direct", batching="per_sample")
    assert field.seen == {(torch.float32, torch.float32, torch.bfloat16)}
    assert solution.ys.dtype == torch.float32
    assert all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in gradients.values())


def test_errors_and_sums_of_stages_are_not_rounded_to_bfloat16():
    """A slope that bfloat16 holds exactly leaves nothing of it in the result."""

    def exact(t, y):
        return torch.full_like(y, 0.5).bfloat16()

    y0 = torch.tensor([[1.0], [1.0 + 2**-20]])
    for name in ("dopri5", "rk4"):
        with torch.autocast("cpu", torch.bfloat16):
            ys = make_solver(name).integrate(exact, y0, times(0, 1)).ys
        torch.testing.assert_close(ys[-1], y0 + 0.5, rtol=0, atol=3e-7)


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_a_float64_state_stays_float64(name):
    field, y0 = Wave(dtype=torch.float32), torch.ones(4, 3, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        ys = make_solver(name).integrate(lambda t, y: field(t, y.float()), y0, times(0, 1)).ys
    assert ys.dtype == torch.float64


def test_a_solve_leaves_autocast_as_it_was():
    with torch.autocast("cpu", torch.bfloat16):
        make_solver("rk4").integrate(lambda t, y: -y, torch.ones(2), times(0, 1))
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


class Multiply:
    """A vector field that is no module."""

    def __call__(self, t, y):
        return y @ torch.ones(3, 3)


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
def test_a_solve_under_autocast_keeps_nothing_afterwards(gradient):
    field = Multiply()
    remembered = weakref.ref(field)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        odeint(field, torch.ones(2, 3, requires_grad=True), times(0, 1), method="rk4", gradient=gradient)
    del field
    gc.collect()
    assert remembered() is None
