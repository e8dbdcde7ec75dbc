import pytest
import torch
from parts import make_solver
from problems import times


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


def test_perturb_evaluates_just_inside_the_step():
    seen = []

    def jump(t, y):
        seen.append(t.item())
        return torch.ones_like(y)

    y0 = torch.zeros(1, dtype=torch.float64)
    make_solver("rk4", num_steps=1, perturb=True).integrate(jump, y0, times(0, 1))
    assert 0 < seen[0] < 1e-300
    assert 1 - 1e-15 < seen[-1] < 1
