"""Which times a solve takes, where its steps end, and how it comes by the states between them."""

import math

import numpy as np
import pytest
import torch
from parts import ADAPTIVE, FIXED, make_solver
from problems import LOGISTIC, PROBLEMS, SWING, times
from scipy.integrate import solve_ivp

BATCHINGS = pytest.mark.parametrize("batching", ["joint", "per_sample"])
SOLVERS = [("joint", name) for name in ADAPTIVE + FIXED] + [("per_sample", name) for name in ADAPTIVE]


def solve(name, ts, batching="joint", record=lambda step, y: None, field=LOGISTIC.vector_field, **keys):
    if name in ADAPTIVE:
        keys = {"rtol": 1e-5, "atol": 1e-5, "batching": batching, **keys}
    else:
        keys = {"num_steps": 40, **keys}
    y0 = torch.tensor([[0.2], [0.5], [0.9]], dtype=torch.float64)
    return make_solver(name, **keys).integrate(field, y0, ts, record=record)


def states_at(ts):
    """The exact states from the same `y0` at `ts[0]`."""
    return LOGISTIC.exact(ts.double() - ts.double()[0])[..., None]


def steps_of(name, ts, **keys):
    steps = []
    solution = solve(name, ts, record=lambda step, y: steps.append(step), **keys)
    return steps, solution


# Which times


@pytest.mark.parametrize(("batching", "name"), SOLVERS)
@pytest.mark.parametrize(
    "ts",
    [
        times(0.5, 1.5),
        times(1.5, 0.5),
        times(-1, 0, 0.25, 1),
        torch.tensor([0, 1, 2]),
        torch.tensor([2, 1, 0], dtype=torch.int32),
        torch.tensor([0.25, 1.0]),
    ],
    ids=["a pair", "reversed", "four", "integer", "reversed integer", "float32"],
)
def test_states_at_times_of_every_kind(batching, name, ts):
    ys = solve(name, ts, batching).ys
    assert ys.dtype == torch.float64
    torch.testing.assert_close(ys, states_at(ts), rtol=0, atol=0.02 if name == "euler" else 3e-4)


@pytest.mark.parametrize(("batching", "name"), SOLVERS)
@pytest.mark.parametrize("sign", [1, -1])
def test_times_may_repeat(batching, name, sign):
    once, repeated = (solve(name, sign * times(*values), batching).ys for values in ((0, 1, 2), (0, 0, 1, 1, 1, 2, 2)))
    torch.testing.assert_close(repeated, once[[0, 0, 1, 1, 1, 2, 2]], rtol=0, atol=0.02 if name == "euler" else 1e-4)
    assert torch.equal(repeated[1], repeated[0])
    assert torch.equal(repeated[2], repeated[4])


@pytest.mark.parametrize(("batching", "name"), SOLVERS)
@pytest.mark.parametrize("count", [2, 4])
def test_an_interval_without_length_ends_where_it_starts(batching, name, count):
    solution = solve(name, torch.full((count,), 0.7, dtype=torch.float64), batching, max_nfe=500)
    assert torch.equal(solution.ys, solution.ys[:1].expand(count, 3, 1))
    assert sum(solution.stats.step_sizes) == 0


@BATCHINGS
@pytest.mark.parametrize("min_step", [0.0, 0.1])
def test_a_first_interval_without_length_says_nothing_of_the_steps_after_it(batching, min_step):
    keys = {"outputs": "step", "first_step": 0.2, "min_step": min_step, "rtol": 1e-3, "atol": 1e-3}
    for ts in (times(1, 1, 2), times(1, 2)):
        solution = solve("dopri5", ts, batching, **keys)
        torch.testing.assert_close(solution.ys, states_at(ts), rtol=0, atol=1e-3)
        assert max(solution.stats.step_sizes) > 0.3


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
@pytest.mark.parametrize(
    ("ts", "message"),
    [
        (times(0), "ts must be 1-dim with at least two times, got shape (1,)"),
        (times(), "ts must be 1-dim with at least two times, got shape (0,)"),
        (times(1).squeeze(), "ts must be 1-dim with at least two times, got shape ()"),
        (times(0, 2, 1), "ts must be increasing or decreasing, got [0.0, 2.0, 1.0]"),
        (times(0, -1, 0), "ts must be increasing or decreasing, got [0.0, -1.0, 0.0]"),
        (times(0, math.nan), "ts must be finite, got [0.0, nan]"),
        (times(-math.inf, 0), "ts must be finite, got [-inf, 0.0]"),
    ],
)
def test_times_that_are_no_order_are_refused(name, ts, message):
    with pytest.raises(ValueError) as error:
        solve(name, ts)
    assert str(error.value) == message


# Where the steps end


@pytest.mark.parametrize("ends", [(0.1, 0.7), (0.7, 0.1), (1e6, 1e6 + 1 / 3), (-1 / 3, 2 / 3)])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_end_is_hit_exactly_and_never_passed(name, ends):
    seen = []

    def watched(t, y):
        seen.append(t.item())
        return LOGISTIC.vector_field(t, y)

    steps, _ = steps_of(name, times(*ends), field=watched)
    assert (steps[0].t0, steps[-1].t1) == ends
    assert [step.t0 for step in steps[1:]] == [step.t1 for step in steps[:-1]]
    assert min(ends) == min(seen)
    assert max(ends) == max(seen)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_end_is_hit_exactly_by_each_sample(name):
    seen = []

    def watched(t, y):
        seen.append(t.flatten())
        return LOGISTIC.vector_field(t, y)

    steps, _ = steps_of(name, times(0.1, 0.7), batching="per_sample", field=watched)
    assert steps[-1].t1.tolist() == [0.7] * 3
    assert torch.stack(seen).min() == 0.1
    assert torch.stack(seen).max() == 0.7


@pytest.mark.parametrize("values", [(0, 0.3, 1, 1.1, 3), (3, 2.2, 2, 0)], ids=["forward", "backward"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_stepping_onto_the_outputs_ends_a_step_at_each(name, values):
    steps, _ = steps_of(name, times(*values), outputs="step")
    assert not any(len(step.inside) for step in steps)
    assert {step.t1: index for step in steps for index in step.ends.index} == {
        float(t): index for index, t in enumerate(values) if index
    }
    for step in steps:
        first, last = step.segment
        assert last == first + 1
        assert min(values[first], values[last]) <= min(step.t0, step.t1)
        assert max(step.t0, step.t1) <= max(values[first], values[last])


@pytest.mark.parametrize("name", ADAPTIVE)
def test_interpolated_outputs_leave_the_steps_as_they_are(name):
    few, many = times(0, 3), torch.linspace(0, 3, 31, dtype=torch.float64)
    plain, between = solve(name, few), solve(name, many)
    assert between.stats == plain.stats
    assert torch.equal(between.ys[-1], plain.ys[-1])
    steps, _ = steps_of(name, many)
    for step in steps:
        for index, theta in zip(step.inside.index, step.inside.theta, strict=True):
            assert step.t0 + theta * (step.t1 - step.t0) == pytest.approx(many[index].item(), abs=1e-14)
        assert step.segment == (0, 30)
    assert [index for step in steps for index in step.inside.index] == list(range(1, 30))
    assert [list(step.ends.index) for step in steps if len(step.ends)] == [[30]]


@BATCHINGS
def test_a_step_that_is_cut_off_by_an_output_is_not_forgotten(batching):
    """By the short step alone the next one would be at most ten times as long."""
    steps, _ = steps_of("dopri5", times(0, 2.0, 2.001, 8.0), batching=batching, outputs="step", rtol=1e-3, atol=1e-3)
    lengths = [float(np.max(np.abs(step.t1 - step.t0))) for step in steps if np.min(step.t0) >= 2.001]
    assert lengths[0] > 0.1


# What lies between


@BATCHINGS
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("outputs", ["step", "interpolate"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_states_between_the_ends_are_as_accurate_as_the_last(name, problem, outputs, batching):
    for ts in (torch.linspace(0, 2, 9, dtype=torch.float64), torch.linspace(2, 0, 9, dtype=torch.float64)):
        tolerance = 1e-4 if name == "adaptive_heun" else 1e-6
        solver = make_solver(name, rtol=tolerance, atol=tolerance, outputs=outputs, batching=batching)
        solution = solver.integrate(problem.vector_field, problem.y0(ts), ts)
        assert solution.ys.shape == (9, 3)
        assert torch.equal(solution.ys[0], problem.y0(ts))
        assert problem.error(solution, ts) < 100 * tolerance


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
def test_a_thousand_outputs_of_dopri8_cost_and_err_no_more_than_those_of_scipy(tolerance):
    ts = torch.linspace(0, 10, 1001, dtype=torch.float64)
    solver = make_solver("dopri8", rtol=tolerance, atol=tolerance)
    ours = solver.integrate(SWING.vector_field, SWING.y0(ts), ts)
    theirs = solve_ivp(
        lambda t, y: np.cos(t) * y, (0, 10), SWING.y0(ts).numpy(), "DOP853", ts.numpy(), rtol=tolerance, atol=tolerance
    )
    assert ours.stats.nfe <= theirs.nfev
    assert SWING.error(ours, ts) < 2 * np.abs(theirs.y.T - SWING.exact(ts).numpy()).max()


@BATCHINGS
def test_many_outputs_in_one_step(batching):
    ts = torch.linspace(0, 0.5, 101, dtype=torch.float64)
    solution = solve("dopri5", ts, batching, first_step=0.5, rtol=1e-3, atol=1e-3)
    assert solution.stats.num_accepted == 1
    torch.testing.assert_close(solution.ys, states_at(ts), rtol=0, atol=1e-4)
