"""Where the steps of a fixed grid lie."""

import pytest
import torch
from parts import FIXED, make_solver
from problems import times

from node_cli.ode.tableaus import TABLEAUS


def step_boundaries(ts, **keys):
    """Where Euler's method evaluates, and the step sizes that it reports."""
    seen = []

    def watched(t, y):
        seen.append(t.item())
        return -y

    solution = make_solver("euler", **keys).integrate(watched, torch.ones(1, dtype=torch.float64), ts)
    return seen, solution


def test_num_steps_are_equal_steps_between_two_output_times():
    seen, solution = step_boundaries(times(0, 1, 3), num_steps=4)
    assert seen == [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5]
    assert solution.stats.step_sizes == [0.25] * 4 + [0.5] * 4
    assert solution.ys.flatten().tolist() == pytest.approx([1, 0.75**4, 0.75**4 * 0.5**4])


def test_last_step_is_shorter_when_the_step_size_does_not_divide_the_interval():
    seen, solution = step_boundaries(times(0, 1), num_steps=None, step_size=0.4)
    assert seen == [0, 0.4, 0.8]
    assert solution.stats.step_sizes == pytest.approx([0.4, 0.4, 0.2])
    assert solution.ys[-1].item() == pytest.approx(0.6 * 0.6 * 0.8)


def test_steps_run_backwards_from_the_first_time():
    seen, solution = step_boundaries(times(1, 0), num_steps=None, step_size=0.4)
    assert seen == pytest.approx([1, 0.6, 0.2])
    assert solution.stats.step_sizes == pytest.approx([0.4, 0.4, 0.2])


@pytest.mark.parametrize("end", [0.3, 2.1, 2.7, 10.0])
@pytest.mark.parametrize("step_size", [0.1, 0.3, 1 / 3 / 10])
def test_step_size_that_divides_the_interval_leaves_no_step_of_rounding_size(end, step_size):
    count = round(end / step_size)
    if abs(count * step_size - end) > 1e-9:
        count += 1
    for ts in (times(0, end), times(end, 0)):
        _, solution = step_boundaries(ts, num_steps=None, step_size=step_size)
        assert solution.stats.num_accepted == count
        assert min(solution.stats.step_sizes) > 1e-3 * step_size
        assert sum(solution.stats.step_sizes) == pytest.approx(end, rel=1e-12)


def test_step_size_longer_than_the_interval_is_one_step():
    _, solution = step_boundaries(times(0, 0.5), num_steps=None, step_size=2.0)
    assert solution.stats.step_sizes == [0.5]


@pytest.mark.parametrize(("keys", "segments"), [({"num_steps": 3}, 3), ({"num_steps": None, "step_size": 0.11}, 3)])
@pytest.mark.parametrize("values", [(0.1, 0.4, 0.7), (0.7, 0.4, 0.1)], ids=["forward", "backward"])
@pytest.mark.parametrize("name", FIXED)
def test_steps_follow_each_other_and_end_at_the_output_times_exactly(name, values, keys, segments):
    steps = []
    make_solver(name, **keys).integrate(
        lambda t, y: -y, torch.ones(1), times(*values), record=lambda step, y: steps.append(step)
    )
    assert [step.t0 for step in steps] == [values[0], *(step.t1 for step in steps[:-1])]
    assert [steps[segments - 1].t1, steps[-1].t1] == list(values[1:])
    assert [list(step.ends.index) for step in steps if len(step.ends)] == [[1], [2]]
    assert not any(len(step.inside) for step in steps)
    assert [step.segment for step in steps] == [(0, 1)] * segments + [(1, 2)] * segments
    assert {step.is_anchored for step in steps} == {"step_size" in keys}


@pytest.mark.parametrize("method", TABLEAUS)
def test_stages_lie_in_their_step_and_the_last_one_at_its_end(method):
    seen = []

    def watched(t, y):
        seen.append(t.item())
        return -y

    ends = (0.1, 0.1 + 0.7)  # whose difference is not 0.7
    make_solver("rk4", method=method, num_steps=1).integrate(watched, torch.ones(1).double(), times(*ends))
    assert seen[0] == ends[0]
    assert seen == pytest.approx([ends[0] + 0.7 * c for c in TABLEAUS[method].c], rel=1e-14)
    assert [t for t in seen if t > ends[0] + 0.7 * 0.999] == [ends[1]] * TABLEAUS[method].c.count(1.0)


def test_an_interval_of_no_length_is_one_step_of_none():
    seen, solution = step_boundaries(times(1, 1, 3, 3), num_steps=2)
    assert seen == [1, 1, 2, 3]
    assert solution.ys.flatten().tolist() == [1, 1, 0, 0]
    _, solution = step_boundaries(times(0.5, 0.5), num_steps=None, step_size=0.1)
    assert solution.ys.flatten().tolist() == [1, 1]
