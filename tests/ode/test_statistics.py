"""What a solve says that it did: evaluations, steps, and which first step to try next."""

import pytest
import torch
from parts import ADAPTIVE, FIXED, make_gradient, make_solver, names
from problems import LOGISTIC, Wave, times
from torch.utils._python_dispatch import TorchDispatchMode

from node_cli.ode.solution import FirstSteps, SolveStats
from node_cli.ode.tableaus import TABLEAUS

GRADIENTS = ["direct", "checkpoint", "adjoint"]
REFUSED = {("scipy", "direct"), ("scipy", "checkpoint"), ("torchdiffeq", "checkpoint")}
COMPANY = sorted({(name, gradient) for name in names("solver") for gradient in GRADIENTS} - REFUSED)
Y0 = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)


def solve(name, gradient="adjoint", ts=(0.0, 0.4, 1.0), first_steps=None, **keys):
    field = Wave()
    y0 = torch.full((2, 3), 0.5, dtype=torch.float64, requires_grad=True)
    solver = make_solver(name, **keys)
    return field, make_gradient(gradient).solve(solver, field, y0, times(*ts), first_steps or FirstSteps())


class Waits(TorchDispatchMode):
    """Counts the numbers that are fetched from tensors: on a GPU the host waits for each."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


# Evaluations


@pytest.mark.parametrize("method", TABLEAUS)
def test_fixed_steps_cost_their_stages(method):
    """A last stage that the next step shares is evaluated once."""
    tableau = TABLEAUS[method]
    _, solution = solve("euler", method=method, ts=(0.0, 1.0), num_steps=4)
    assert solution.stats.nfe == 4 * (tableau.num_stages - tableau.is_fsal) + tableau.is_fsal
    assert (solution.stats.num_accepted, solution.stats.num_rejected) == (4, 0)
    assert solution.stats.step_sizes == [0.25] * 4


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_steps_cost_their_stages(name):
    """One evaluation at the start, none to choose the first step; a rejected step keeps its first stage."""
    tableau = TABLEAUS[make_solver(name).method]
    for first_step in (1.0, "chosen", "carried"):
        solver = make_solver(name, rtol=1e-4, atol=1e-4, first_step=first_step)
        stats = solver.integrate(lambda t, y: 10 * torch.cos(9 * t) * y, Y0, times(0, 1)).stats
        attempts = stats.num_accepted + stats.num_rejected
        restarts = 0 if tableau.is_fsal else stats.num_accepted - 1
        assert stats.num_rejected > 0
        assert stats.nfe == 1 + attempts * (tableau.num_stages - 1) + restarts


@pytest.mark.parametrize(("name", "gradient"), COMPANY)
def test_evaluations_are_those_that_the_vector_field_saw(name, gradient):
    field, solution = solve(name, gradient)
    assert solution.stats.nfe == field.calls > 0
    forward = field.calls
    solution.ys.sum().backward()
    assert solution.stats.nfe == forward
    assert solution.backward_stats.nfe == field.calls - forward
    assert (field.calls > forward) == (gradient != "direct")


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_evaluations_for_the_gradient_of_the_times_are_counted(gradient):
    field = Wave()
    y0, ts = torch.ones(1, 3, dtype=torch.float64), times(0, 0.5, 1, requires_grad=True)
    solution = make_gradient(gradient).solve(make_solver("dopri5"), field, y0, ts, FirstSteps())
    forward = field.calls
    solution.ys.sum().backward()
    assert solution.backward_stats.nfe == field.calls - forward


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_evaluation_costs_what_training_costs(name, gradient):
    _, training = solve(name, gradient)
    with torch.no_grad():
        _, evaluation = solve(name, gradient)
    assert evaluation.stats == training.stats
    assert not evaluation.ys.requires_grad
    torch.testing.assert_close(evaluation.ys, training.ys.detach(), rtol=0, atol=0)


# Steps


@pytest.mark.parametrize("name", [*ADAPTIVE, *FIXED])
@pytest.mark.parametrize("ts", [(0.0, 0.4, 1.0), (1.0, 0.4, 0.0)], ids=["forward", "backward"])
def test_accepted_steps_add_up_to_the_interval(name, ts):
    _, solution = solve(name, ts=ts)
    solution.ys.sum().backward()
    for stats in (solution.stats, solution.backward_stats):
        assert len(stats.step_sizes) == stats.num_accepted
        assert min(stats.step_sizes) > 0
        assert sum(stats.step_sizes) == pytest.approx(1)


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
@pytest.mark.parametrize("outputs", ["interpolate", "step"])
def test_steps_stay_below_the_longest(batching, outputs):
    solver = make_solver("dopri5", max_step=0.1, batching=batching, outputs=outputs)
    for end, least in (
        (1.0, 10),
        (1.004, 11),
    ):  # of the second a tenth step nearly reaches the end
        stats = solver.integrate(LOGISTIC.vector_field, Y0, times(0, end)).stats
        assert max(stats.step_sizes) <= 0.1 + 1e-12
        assert stats.num_accepted == least + (stats.step_sizes[0] < 0.09)


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
def test_a_first_step_that_is_given_is_taken(batching):
    solver = make_solver("dopri5", first_step=0.07, batching=batching)
    assert solver.integrate(LOGISTIC.vector_field, Y0, times(0, 1)).stats.step_sizes[0] == pytest.approx(0.07)
    assert solver.integrate(LOGISTIC.vector_field, Y0, times(0, 0.05)).stats.step_sizes[0] == 0.05


def test_step_control_by_a_controller_with_a_memory_rejects_less():
    def swinging(t, y):
        return 30 * torch.sin(20 * t) * y

    stats = {}
    for pcoeff, icoeff in ((0.0, 1.0), (0.4, 0.3)):
        solver = make_solver("dopri5", pcoeff=pcoeff, icoeff=icoeff, rtol=1e-6, atol=1e-6)
        stats[pcoeff] = solver.integrate(swinging, Y0, times(0, 2)).stats
    assert stats[0.4].num_rejected < stats[0.0].num_rejected


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
def test_safety_and_bounds_of_the_factor_reach_the_controller(batching):
    def sizes(**keys):
        keys = {"first_step": 1e-4, "batching": batching, **keys}
        return make_solver("dopri5", **keys).integrate(LOGISTIC.vector_field, Y0[:1], times(0, 1)).stats.step_sizes

    assert sizes(ifactor=3.0)[1] == pytest.approx(3e-4)
    assert sizes(ifactor=5.0)[1] == pytest.approx(5e-4)
    first = {"first_step": 1.0, "rtol": 1e-9, "atol": 1e-9}
    assert sizes(**first, dfactor=0.5)[0] >= 0.03
    assert sizes(**first, dfactor=0.01)[0] != sizes(**first, dfactor=0.01, safety=0.5)[0]


def test_the_norm_decides_how_many_steps_one_hard_entry_among_many_costs():
    y0 = torch.zeros(1, 100, dtype=torch.float64)
    y0[0, 0] = 1
    nfe = {}
    for batching in ("joint", "per_sample"):
        for norm in ("rms", "max"):
            solver = make_solver("dopri5", norm=norm, batching=batching, rtol=1e-6, atol=1e-6)
            nfe[batching, norm] = solver.integrate(lambda t, y: -5 * y, y0, times(0, 1)).stats.nfe
    assert nfe["joint", "rms"] < nfe["joint", "max"] == nfe["per_sample", "max"]
    assert nfe["per_sample", "rms"] == nfe["joint", "rms"]


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
def test_absolute_tolerance_of_a_channel(batching):
    def error(atol, shape):
        y0 = torch.ones(shape, dtype=torch.float64)
        solver = make_solver("bosh3", rtol=1e-12, atol=atol, batching=batching)
        y1 = solver.integrate(lambda t, y: -3 * y, y0, times(0, 1)).ys[-1]
        return (y1 - torch.exp(torch.tensor(-3.0))).abs().max().item()

    for shape in ((2, 3), (2, 3, 4), (2, 3, 2, 2)):
        assert error([1e-4] * 3, shape) == error(1e-4, shape)
        assert error([1e-4, 1e-8, 1e-4], shape) < error(1e-4, shape) / 100


# First steps that are carried over


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_carried_first_step_is_tried_first(name):
    solver, ts = make_solver(name, first_step="carried", rtol=1e-5, atol=1e-5), times(0, 20)
    first = solver.integrate(LOGISTIC.vector_field, Y0, ts).stats
    assert first.next_first_step > 0
    second = solver.integrate(LOGISTIC.vector_field, Y0, ts, first_step=first.next_first_step).stats
    assert second.step_sizes[0] == first.next_first_step
    assert abs(second.num_accepted - first.num_accepted) <= 1


def test_the_first_step_to_carry_is_a_cautious_share_of_what_the_first_error_allows():
    solver = make_solver("dopri5", first_step="carried", ifactor=8.0)
    stats = solver.integrate(lambda t, y: torch.ones_like(y), Y0, times(0, 1), first_step=0.01).stats
    assert stats.next_first_step == pytest.approx(0.6 * 8 * 0.01)  # there is no error


def test_the_first_step_to_carry_settles():
    solver, tried = make_solver("dopri5", rtol=1e-6, atol=1e-6), [4.0]
    for _ in range(6):
        stats = solver.integrate(LOGISTIC.vector_field, Y0, times(0, 4), first_step=tried[-1]).stats
        tried.append(stats.next_first_step)
    assert max(tried[1:]) < 1.0  # the first was refused
    assert stats.num_rejected == 0
    assert tried[-1] == pytest.approx(tried[-2], rel=0.01)  # settled, not run away


@pytest.mark.parametrize("first_step", ["chosen", 0.1])
def test_only_carried_first_steps_are_carried(first_step):
    assert (
        make_solver("dopri5", first_step=first_step)
        .integrate(LOGISTIC.vector_field, Y0, times(0, 1))
        .stats.next_first_step
        is None
    )
    assert make_solver("rk4").integrate(LOGISTIC.vector_field, Y0, times(0, 1)).stats.next_first_step is None


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_gradient_brings_the_first_steps_up_to_date(gradient):
    first_steps = FirstSteps()
    tight = {"rtol": 1e-6, "atol": 1e-6}
    _, first = solve("dopri5", gradient, first_steps=first_steps, **tight)
    assert first_steps.forward == first.stats.next_first_step
    first.ys.sum().backward()
    assert (first_steps.backward is not None) == (gradient == "adjoint")
    carried = first_steps.forward
    _, second = solve("dopri5", gradient, first_steps=first_steps, **tight)
    assert second.stats.step_sizes[0] == pytest.approx(carried)


def test_costs_add_up():
    total = SolveStats(1, 2, 3, [0.5])
    total.add(SolveStats(10, 20, 30, [0.25, 0.125], next_step=1.0))
    assert total == SolveStats(11, 22, 33, [0.5, 0.25, 0.125])


# Waits for the device


@pytest.mark.parametrize("first_step", ["chosen", 0.3])
@pytest.mark.parametrize("outputs", ["interpolate", "step"])
def test_an_adaptive_solve_waits_for_the_device_once_an_attempt(outputs, first_step):
    solver = make_solver("dopri5", outputs=outputs, first_step=first_step, rtol=1e-6, atol=1e-6)
    with Waits() as waits:
        stats = solver.integrate(lambda t, y: 10 * torch.cos(9 * t) * y, Y0, times(0, 0.3, 0.5, 1)).stats
    assert stats.num_rejected > 0
    assert waits.count == stats.num_accepted + stats.num_rejected + (first_step == "chosen")


@pytest.mark.parametrize("name", FIXED)
def test_a_solve_in_fixed_steps_waits_for_nothing(name):
    with Waits() as waits:
        make_solver(name, num_steps=20).integrate(LOGISTIC.vector_field, Y0, times(0, 0.3, 1))
    assert waits.count == 0
