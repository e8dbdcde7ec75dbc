"""Under bfloat16 autocast the vector field computes in bfloat16, the state stays float32."""

import pytest
import torch
from parts import make_gradient, make_solver
from problems import Wave, times


class Watched(Wave):
    """Records the dtypes of the state that comes and of the slope that goes."""

    def __init__(self):
        super().__init__(dtype=torch.float32)
        self.seen = set()

    def forward(self, t, y):
        dy = super().forward(t, y)
        self.seen.add((t.dtype, y.dtype, dy.dtype))
        return dy


def solve(name, gradient, enabled=True, backward_inside=False):
    field = Watched()
    y0 = torch.linspace(-1, 1, 12).reshape(4, 3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        solution = make_gradient(gradient).solve(make_solver(name), field, y0, times(0, 0.5, 1))
        if backward_inside:
            (solution.ys**2).sum().backward()
    if not backward_inside:
        (solution.ys**2).sum().backward()
    return field, solution, {"y0": y0.grad, **{name: p.grad for name, p in field.named_parameters()}}


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
@pytest.mark.parametrize("name", ["dopri5", "rk4", "implicit_adams"])
def test_state_stays_float32_and_every_parameter_has_a_gradient(name, gradient):
    field, solution, gradients = solve(name, gradient)
    assert field.seen == {(torch.float32, torch.float32, torch.bfloat16)}
    assert solution.ys.dtype == torch.float32
    for grad in gradients.values():
        assert grad.dtype == torch.float32
        assert grad.abs().sum() > 0


@pytest.mark.parametrize("backward_inside", [False, True], ids=["backward outside", "backward inside"])
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_gradients_are_those_of_float32_to_the_accuracy_of_bfloat16(gradient, backward_inside):
    _, _, found = solve("rk4", gradient, backward_inside=backward_inside)
    _, _, expected = solve("rk4", "direct", enabled=False)
    for name, grad in expected.items():
        assert (found[name] - grad).norm() < 0.03 * grad.norm(), name
        assert not torch.equal(found[name], grad)


def test_adjoint_leaves_no_weight_without_a_graph_in_autocasts_cache():
    field = Watched()
    with torch.autocast("cpu", torch.bfloat16):
        make_gradient("adjoint").solve(make_solver("rk4"), field, torch.ones(4, 3), times(0, 1))
        field(torch.tensor(0.0), torch.ones(4, 3)).sum().backward()
    assert field.hidden.weight.grad.abs().sum() > 0
