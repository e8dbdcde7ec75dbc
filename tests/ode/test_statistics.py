import pytest
import torch
from parts import ADAPTIVE, make_gradient, make_solver, names
from problems import Wave, times


def solve(name, gradient="adjoint", ts=(0.0, 0.4, 1.0), **keys):
    field = Wave()
    y0 = torch.full((2, 3), 0.5, dtype=torch.float64, requires_grad=True)
    return field, make_gradient(gradient).solve(make_solver(name, **keys), field, y0, times(*ts))


@pytest.mark.parametrize(("name", "stages"), [("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4)])
def test_fixed_steps_cost_their_stages(name, stages):
    _, solution = solve(name, ts=(0.0, 1.0), num_steps=4)
    assert solution.stats.nfe == 4 * stages
    assert (solution.stats.num_accepted, solution.stats.num_rejected) == (4, 0)
    solution.ys[-1].sum().backward()
    assert solution.backward_stats.nfe == 4 * stages
    assert solution.backward_stats.num_accepted == 4


@pytest.mark.parametrize("name", names("solver"))
def test_evaluations_are_those_that_the_vector_field_saw(name):
    field, solution = solve(name)
    assert solution.stats.nfe == field.calls > 0
    forward = field.calls
    solution.ys.sum().backward()
    assert solution.stats.nfe == forward
    assert solution.backward_stats.nfe == field.calls - forward > 0


def test_evaluations_for_the_gradient_of_the_times_are_counted():
    field = Wave()
    y0, ts = torch.ones(1, 3, dtype=torch.float64), times(0, 0.5, 1, requires_grad=True)
    solution = make_gradient("adjoint").solve(make_solver("dopri5"), field, y0, ts)
    forward = field.calls
    solution.ys.sum().backward()
    assert solution.backward_stats.nfe == field.calls - forward


@pytest.mark.parametrize("name", [*ADAPTIVE, "rk4", "explicit_adams", "scipy"])
@pytest.mark.parametrize("ts", [(0.0, 0.4, 1.0), (1.0, 0.4, 0.0)], ids=["forward", "backward"])
def test_accepted_steps_add_up_to_the_interval(name, ts):
    _, solution = solve(name, ts=ts)
    for stats in (solution.stats, solution.backward_stats):
        assert len(stats.step_sizes) == stats.num_accepted
        assert min(stats.step_sizes, default=1) > 0
    assert sum(solution.stats.step_sizes) == pytest.approx(1)
    solution.ys.sum().backward()
    assert sum(solution.backward_stats.step_sizes) == pytest.approx(1)


def test_dopri5_evaluates_twice_and_then_six_times_a_step():
    _, solution = solve("dopri5", first_step=1.0, rtol=1e-6, atol=1e-6)
    stats = solution.stats
    assert stats.num_rejected > 0
    assert stats.nfe == 1 + 6 * (stats.num_accepted + stats.num_rejected)


def test_steps_stay_between_the_bounds():
    _, solution = solve("dopri5", max_step=0.1)
    assert max(solution.stats.step_sizes) <= 0.1 + 1e-12
    _, solution = solve("dopri5", ts=(0.0, 1.0), first_step=0.25, min_step=0.25, rtol=1e-12, atol=1e-12)
    assert solution.stats.step_sizes == pytest.approx([0.25] * 4)


def test_direct_needs_no_second_solve():
    field, solution = solve("dopri5", "direct")
    forward = field.calls
    solution.ys.sum().backward()
    assert field.calls == forward
    assert solution.backward_stats.nfe == 0


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_evaluation_costs_what_training_costs(gradient):
    _, training = solve("dopri5", gradient)
    with torch.no_grad():
        _, evaluation = solve("dopri5", gradient)
    assert evaluation.stats == training.stats
    assert not evaluation.ys.requires_grad
    torch.testing.assert_close(evaluation.ys, training.ys.detach(), rtol=0, atol=0)
