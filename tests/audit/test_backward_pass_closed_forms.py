"""The gradient of the ODE itself, and the way back, where both are known: dy/dt = alpha y."""

import math

import pytest
import torch
from parts import make_gradient, make_solver
from small_models import Squares, make_case, make_passes

from node_cli.audit.backward_pass import BackwardPass
from node_cli.audit.stand_ins import WrongSign
from node_cli.models.ode_block import OdeBlock
from node_cli.ode.solution import FirstSteps

ALPHA = 0.75  # the same number in float32
Y0, TARGETS = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 0.0, 3.0])
# What a step of length h multiplies the state by, as a function of h alpha.
FACTORS = {
    "euler": lambda z: 1 + z,
    "heun": lambda z: 1 + z + z**2 / 2,
    "rk4": lambda z: 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24,
}


class Growth(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha = torch.nn.Parameter(torch.tensor(ALPHA))

    def forward(self, t, y):
        return self.alpha * y


class GrowthNet(torch.nn.Module):
    """One ODE block, and nothing before or after it."""

    def __init__(self, case, t0, t1):
        super().__init__()
        self.block = OdeBlock(Growth(), case.solver, case.gradient, t0=t0, t1=t1, learn_times=False)

    def forward(self, y):
        return self.block(y)


def growth_passes(case, t0=0.5, t1=2.0, dtype=torch.float64):
    batch = {"inputs": Y0[:, None].to(dtype), "targets": TARGETS}
    return BackwardPass(GrowthNet(case, t0, t1).to(dtype), Squares(), batch, "float32")


@pytest.mark.parametrize(("t0", "t1"), [(0.5, 2.0), (2.0, 0.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_the_gradient_of_the_ode_whatever_solver_and_precision(gradient, dtype, t0, t1):
    passes = growth_passes(make_case("euler", gradient), t0, t1, dtype)
    found, nfe = passes.of_the_ode(1e-9)
    y1 = Y0.double() * math.exp(ALPHA * (t1 - t0))
    slope = 2 * (y1 - TARGETS) / 3  # of the loss in y1
    assert found.loss == pytest.approx((y1 - TARGETS).square().mean().item(), rel=1e-8)
    alpha, times = found.parameters["block.vector_field.alpha"], found.times
    assert alpha.item() == pytest.approx((slope * y1).sum().item() * (t1 - t0), rel=1e-7)
    assert times["block.t1"].item() == pytest.approx((slope * ALPHA * y1).sum().item(), rel=1e-7)
    assert times["block.t0"].item() == pytest.approx(-times["block.t1"].item(), rel=1e-7)
    assert passes.of_the_ode(1e-4)[1] < nfe


@pytest.mark.parametrize(("t0", "t1"), [(0.5, 2.0), (2.0, 0.5)])
@pytest.mark.parametrize(("solver", "keys"), [("dopri5", {"rtol": 1e-9, "atol": 1e-9}), ("rk4", {"num_steps": 50})])
def test_with_the_wrong_sign_the_gradient_is_a_sinh(solver, keys, t0, t1):
    """With a(t) = a(t1) e^{alpha (t - t1)}, the integral of a y is a(t1) y0 sinh(alpha (t1 - t0)) / alpha."""
    case = make_case(solver, **keys)
    passes = growth_passes(case, t0, t1)
    y0, span = Y0.double(), t1 - t0
    y1 = y0 * math.exp(ALPHA * span)
    slope = 2 * (y1 - TARGETS) / 3  # of the loss in y1
    alpha = passes.with_wrong_sign(case.solver)["block.vector_field.alpha"].item()
    assert alpha == pytest.approx((slope * y0).sum().item() * math.sinh(ALPHA * span) / ALPHA, rel=1e-6)
    right = (slope * y1).sum().item() * span
    assert alpha != pytest.approx(right, rel=0.1)
    for after in (passes.of(case), passes.exact(case.solver)[0]):
        assert after.parameters["block.vector_field.alpha"].item() == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("solver", ["dopri5", "rk4", "torchdiffeq"])
def test_the_wrong_sign_leaves_the_states_and_the_slope_at_the_end_alone(solver):
    y0 = Y0.double()[:, None].requires_grad_()
    ts = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    field, made_by = Growth().double(), make_solver(solver)
    right, wrong = (
        gradient.solve(made_by, field, y0, ts, FirstSteps()).ys for gradient in (make_gradient("adjoint"), WrongSign())
    )
    assert torch.equal(wrong, right)
    (of_y0, of_ts), (true_of_y0, true_of_ts) = (torch.autograd.grad(ys[-1].sum(), (y0, ts)) for ys in (wrong, right))
    assert of_ts[-1] == true_of_ts[-1]
    tolerance = {"rtol": 0.02, "atol": 0}
    torch.testing.assert_close(true_of_y0, torch.full_like(y0, math.exp(1.5 * ALPHA)), **tolerance)
    torch.testing.assert_close(of_y0, torch.full_like(y0, math.exp(-1.5 * ALPHA)), **tolerance)


def test_the_evaluations_of_all_blocks_count():
    one, two = (make_passes("odenet_mlp", make_case("euler"), num_blocks=blocks) for blocks in (1, 2))
    assert two.of_the_ode(1e-6)[1] > 1.5 * one.of_the_ode(1e-6)[1]


@pytest.mark.parametrize("method", FACTORS)
@pytest.mark.parametrize(("t0", "t1"), [(0.5, 2.0), (2.0, 0.5)])
def test_the_way_back_of_fixed_steps(method, t0, t1):
    """There and back a step multiplies by R(h alpha) R(-h alpha); with Euler's method by 1 - (h alpha)^2."""
    num_steps = 3
    case = make_case(method, num_steps=num_steps)
    drift = growth_passes(case, t0, t1).reconstruction(case, num_times=9)
    h, factor = (t1 - t0) / num_steps, FACTORS[method]
    missed = abs((factor(h * ALPHA) * factor(-h * ALPHA)) ** num_steps - 1)
    assert drift.keys() == {"block"}
    assert drift["block"] == pytest.approx([missed, 0], rel=1e-9)


def test_the_way_back_between_the_ends():
    """Of an accurate solve nothing is missed; of a rough one more, the further back."""
    fine, rough = (make_case("dopri5", rtol=rtol, atol=rtol) for rtol in (1e-10, 1e-1))
    missed = growth_passes(fine).reconstruction(fine, num_times=5)["block"]
    assert len(missed) == 5
    assert missed[-1] == 0
    assert 0 < missed[0] < 1e-8
    missed = growth_passes(rough).reconstruction(rough, num_times=5)["block"]
    assert missed[0] == max(missed) > 1e-6


@pytest.mark.parametrize(
    ("solver", "keys", "num_times"),
    [
        ("dopri5", {"rtol": 1e-6}, 7),
        ("dopri5", {"rtol": 1e-6, "batching": "per_sample"}, 7),
        ("dopri5", {"outputs": "step"}, 2),
        ("rk4", {}, 2),
        ("torchdiffeq", {}, 2),
    ],
)
def test_a_solver_that_steps_onto_its_outputs_shows_both_ends(solver, keys, num_times):
    case = make_case(solver, **keys)
    drift = make_passes("odenet_mlp", case, num_blocks=2).reconstruction(case, num_times=7)
    assert drift.keys() == {"blocks.0", "blocks.1"}
    for missed in drift.values():
        assert len(missed) == num_times
        assert missed[-1] == 0
        assert 0 < missed[0] < 0.01


def test_more_times_do_not_change_what_the_way_back_misses():
    case = make_case("dopri5")
    passes = growth_passes(case)
    ends, all_times = (passes.reconstruction(case, num_times)["block"] for num_times in (2, 9))
    assert all_times[0] == pytest.approx(ends[0], rel=1e-9)


def test_the_way_back_leaves_no_hook_behind():
    case = make_case("rk4")
    passes = growth_passes(case)
    assert passes.reconstruction(case, 2) == passes.reconstruction(case, 2)
    nfe = passes.cost_of(case).nfe_forward
    passes.reconstruction(case, 2)
    assert passes.cost_of(case).nfe_forward == nfe == 16
