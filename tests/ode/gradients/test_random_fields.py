"""A vector field that draws random numbers: exact through direct, refused wherever a step would be run again."""

import pytest
import torch
from problems import times
from torch import nn

from node_cli.ode import solve

FIELD = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
REFUSED = r"^the vector field draws random numbers \(dropout\?\), so a step that is run again"


def field(t, y):
    return FIELD(y)


def solved(gradient="direct"):
    torch.manual_seed(0)
    y0 = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    return y0, solve(field, y0, times(0, 1), method="rk4", num_steps=2, gradient=gradient).ys


def test_direct_is_the_gradient_of_the_numbers_that_were_drawn():
    y0, ys = solved()
    (grad,) = torch.autograd.grad(ys[-1].sum(), y0)
    shift = 1e-6 * torch.ones_like(y0)
    ends = []
    for sign in (1, -1):
        torch.manual_seed(0)
        with torch.no_grad():
            ends.append(solve(field, y0 + sign * shift, times(0, 1), method="rk4", num_steps=2).ys[-1].sum())
    torch.testing.assert_close(grad.sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-7, atol=1e-8)


def test_checkpoint_refuses():
    with pytest.raises(ValueError, match=REFUSED):
        solved("checkpoint")


def test_a_second_backward_pass_is_refused():
    y0, ys = solved()
    torch.autograd.grad(ys.sum(), y0, retain_graph=True)
    with pytest.raises(ValueError, match=REFUSED):
        torch.autograd.grad(ys.sum(), y0)


def test_second_derivatives_are_refused():
    y0, ys = solved()
    with pytest.raises(ValueError, match=REFUSED):
        torch.autograd.grad(ys.sum(), y0, create_graph=True)
