"""What follows an attempt that was rejected: a step that does not grow."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from parts import make_solver
from problems import times
from scipy.integrate import solve_ivp

from node_cli.ode.control import Controller
from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.solution import FirstSteps

# Error ratios of one attempt after the other, and the steps that dopri5 then takes if it tries one of length 1 first.
SCRIPT = [32.0, 0.0, 0.0, math.nan, 1.0, 32.0, 32.0, 1e-9, 1e-9]
STEPS = [0.45, 0.45, 4.5 * 0.2, *[4.5 * 0.2 * 0.9 * 0.45 * 0.45] * 2]
Y0 = torch.ones(2, 1, dtype=torch.float64)


def scripted(*scripts):
    """A norm that reads the ratios from a script, of all samples or of each, whatever the error is."""
    left = [iter(script) for script in scripts]

    def norm(error):
        ratios = [next(script, 0.0) for script in left]
        return (error[0] if isinstance(error, tuple) else error).new_tensor(ratios if len(ratios) > 1 else ratios[0])

    return norm


def steps(norm, ts=(0.0, 50.0), **keys):
    """The lengths of the accepted steps; where each sample has its own, 0 for one that stays."""
    found = []

    def record(step, y):
        moved = 1 if step.accepted is None else step.accepted.numpy()
        found.append(moved * abs(step.t1 - step.t0))

    solver = make_solver("dopri5", norm=norm, first_step=1.0, **keys)
    ts = ts if isinstance(ts, torch.Tensor) else times(*ts)
    solver.integrate(lambda t, y: -y / 1e3, Y0, ts, record=record)
    return found


@pytest.mark.parametrize("sign", [1, -1])
def test_one_step_for_all(sign):
    assert steps(scripted(SCRIPT), (0.0, sign * 50.0))[:5] == pytest.approx(STEPS, rel=1e-12)


def test_one_step_for_all_at_times_of_their_own():
    ts = torch.tensor([[0.0, 5.0], [1.0, 51.0]], dtype=torch.float64)
    assert [step[1] for step in steps(scripted(SCRIPT), ts)[:5]] == pytest.approx(STEPS, rel=1e-12)


def test_each_sample_by_its_own_attempts():
    """Where one of the samples is not a number, none of them moves; the other one may grow as before."""
    taken = steps(scripted([32.0, 0.0, 1.0, 0.0, 0.0], [1.0, math.nan, 0.0, 0.0, 1.0]), batching="per_sample")
    first, second = np.array(taken[:4]).T
    assert first.tolist() == pytest.approx([0.0, 0.45, 0.405, 4.05])
    assert second.tolist() == pytest.approx([1.0, 0.18, 0.18, 1.8])


PID = {"pcoeff": 0.4, "icoeff": 0.3, "dcoeff": 0.1}


def test_a_controller_with_a_memory_does_not_grow_either():
    together, alone = Controller(4, 0.9, 10.0, 0.2, **PID), Controller(4, 0.9, 10.0, 0.2, **PID)
    assert together.factor(0.5) == alone.factor(0.5) > 1
    assert together.factor(2.0) < 0.9
    assert together.factor(0.1) == 1.0
    assert alone.factor(0.1) > 1  # but for the attempt between, the same
    assert together.factor(0.01) == alone.factor(0.01) > 1


def test_the_solve_backwards_of_the_adjoint():
    y0 = Y0.clone().requires_grad_()
    solver = make_solver("dopri5", first_step=1.0)
    adjoint = Adjoint(rtol=None, atol=None, norm=scripted(SCRIPT))
    solution = adjoint.solve(solver, lambda t, y: -y / 1e3, y0, times(0, 50), FirstSteps())
    solution.ys[-1].sum().backward()
    assert solution.backward_stats.step_sizes[:5] == pytest.approx(STEPS, rel=1e-12)
    assert solution.backward_stats.num_rejected == 4


class Network(torch.nn.Module):
    """Kinks where a unit comes to zero."""

    def __init__(self, width):
        super().__init__()
        random = torch.Generator().manual_seed(width)
        shapes = ((width, 2), (width, width), (2, width))
        self.weights = [1.5 * torch.randn(shape, generator=random).double() / shape[1] ** 0.5 for shape in shapes]

    def forward(self, t, y):
        for weight in self.weights[:-1]:
            y = torch.relu(y @ weight.T + t.sin())
        return y @ self.weights[-1].T


START, T1 = torch.tensor([[1.0, 0.2]], dtype=torch.float64), 4.0
ROUGH = {
    "ReLU network": Network(16),
    "kinks in time": lambda t, y: (t % 0.7 - 0.35).abs() - 0.1 * y,
    "jumps in time": lambda t, y: torch.where(1.3 * t % 1 < 0.5, 1.0, -1.0) * y,
    "limited spring": lambda t, y: torch.stack([y[..., 1], -4 * y[..., 0].clamp(-0.5, 0.5)], -1),
}


@cache
def reference(name):
    solver = make_solver("dopri5", rtol=1e-9, atol=1e-9, max_nfe=None)
    return solver.integrate(ROUGH[name], START, times(0, T1)).ys[-1].numpy()


@pytest.mark.parametrize(("method", "theirs"), [("dopri5", "RK45"), ("bosh3", "RK23")])
def test_rough_fields_cost_what_they_cost_scipy_which_has_the_same_rule(method, theirs):
    costs, errors = [], []
    for name, field in ROUGH.items():
        for tolerance in (1e-4, 1e-5, 1e-6):
            solver = make_solver(method, rtol=tolerance, atol=tolerance, first_step="chosen")
            ours = solver.integrate(field, START, times(0, T1))

            def of_arrays(t, y, field=field):
                return field(torch.tensor(t), torch.from_numpy(y)).numpy()

            peer = solve_ivp(of_arrays, (0, T1), START[0].numpy(), theirs, rtol=tolerance, atol=tolerance)
            costs.append((ours.stats.nfe, peer.nfev))
            distances = [np.abs(y - reference(name)).max() for y in (ours.ys[-1].numpy(), peer.y[:, -1])]
            errors.append(distances[0] / distances[1])
    mine, others = np.sum(costs, 0)
    assert mine < 1.05 * others
    assert np.median(errors) < 1.5
