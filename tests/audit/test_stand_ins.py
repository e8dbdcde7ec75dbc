"""Solves that stand in for a block's own."""

import pytest
import torch
from parts import make_gradient, make_solver

from node_cli.audit.stand_ins import SolvedBack
from node_cli.ode.solution import FirstSteps

OWN_TIMES = torch.tensor([[0.0, 0.4, 1.0], [0.5, 2.0, 2.0]], dtype=torch.float64)
SHAPES = {"interpolate": (5, 2, 1), "step": (2, 2, 1), "grid": (2, 2, 1)}


@pytest.mark.parametrize(
    ("outputs", "solver"),
    [
        ("interpolate", make_solver("dopri5", rtol=1e-8, atol=1e-8)),
        ("interpolate", make_solver("dopri5", rtol=1e-8, atol=1e-8, batching="per_sample")),
        ("step", make_solver("dopri5", rtol=1e-8, atol=1e-8, outputs="step")),
        ("grid", make_solver("rk4", num_steps=50)),
    ],
)
@pytest.mark.parametrize("ts", [OWN_TIMES, OWN_TIMES[0]], ids=["own times", "the same times"])
def test_each_sample_is_solved_back_from_its_own_last_time(ts, outputs, solver):
    found = []
    back = SolvedBack(make_gradient("direct"), 5, lambda *states: found.append(states))
    y0 = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    solution = back.solve(solver, lambda t, y: -y, y0, ts, FirstSteps())
    ((there, again),) = found
    assert there.shape == again.shape == SHAPES[outputs]
    torch.testing.assert_close(there[0], y0)
    torch.testing.assert_close(there[-1], solution.ys[-1])
    torch.testing.assert_close(again, there, rtol=1e-6, atol=0)
