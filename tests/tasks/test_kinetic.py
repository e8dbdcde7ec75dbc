"""The kinetic energy of ODE blocks beside the loss of each task."""

from __future__ import annotations

import pytest
import torch
from parts import make_gradient, make_solver
from torch import nn

from node_cli.models.ode_block import OdeBlock
from node_cli.tasks.classification import Classification
from node_cli.tasks.kinetic import Kinetic


class Constant(nn.Module):
    """dy/dt = c, so that the energy is c^2."""

    def __init__(self, c):
        super().__init__()
        self.c = nn.Parameter(torch.tensor(c))

    def forward(self, t, y):
        return self.c + torch.zeros_like(y)


def blocks(*slopes, **keys):
    solver, gradient = make_solver("dopri5", **keys), make_gradient("direct")
    return nn.Sequential(*(OdeBlock(Constant(c), solver, gradient, t0=0.0, t1=1.0, learn_times=False) for c in slopes))


BATCH = {"inputs": torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 1.0]]), "targets": torch.tensor([0, 1, 0])}


def test_it_is_added_to_the_mean_loss_with_its_weight_and_leaves_nothing_behind():
    model = blocks(1.0, 2.0)
    losses = {
        weight: Classification(("a", "b"), label_smoothing=0.0, kinetic=weight).loss(model, BATCH, 0.0)
        for weight in (0.0, 0.1)
    }
    assert (losses[0.1].total - losses[0.0].total).item() == pytest.approx(0.1 * (1 + 4) * 3)
    assert losses[0.1].metrics["kinetic"].item() == pytest.approx((1 + 4) * 3)
    assert "kinetic" not in losses[0.0].metrics
    assert [block.energies for block in model] == [None, None]
    losses[0.1].total.backward()
    assert [block.vector_field.c.grad.item() for block in model] == pytest.approx([0.1 * 2 * 3, 0.1 * 4 * 3], abs=1e-4)


def test_what_it_does_not_go_with_is_refused():
    with pytest.raises(ValueError, match=r"^kinetic must be at least 0, got -1"):
        Kinetic(-1.0)
    with pytest.raises(ValueError, match=r"^task\.kinetic needs one solver\.atol for all channels"):
        Kinetic(0.1).check(blocks(1.0, atol=[1e-3, 1e-3]))
    assert set(Kinetic(0.1).unused(nn.Linear(2, 2))) == {"task.kinetic"}
    assert Kinetic(0.1).unused(blocks(1.0)) == {}
