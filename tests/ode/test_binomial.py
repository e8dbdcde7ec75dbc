"""Binomial checkpointing: the states come back in order, few are kept, and no fewer steps could be run again."""

from functools import cache

import pytest
import torch
from parts import make_gradient, make_solver
from problems import Wave, times

from node_cli.ode.gradients.binomial import ThinnedStates, backwards
from node_cli.ode.solution import FirstSteps


class CountedSteps:
    """States are the numbers of their steps; counts steps and states that are alive."""

    def __init__(self):
        self.count = 0

    def advance(self, n, y):
        assert y == n
        self.count += 1
        return n + 1


@cache
def fewest(length, slots):
    """Steps run again at least, by trying every split (Griewank and Walther 2000, equation 1)."""
    if length == 1:
        return 0
    if slots == 0:
        return length * (length - 1) // 2
    return min(m + fewest(length - m, slots - 1) + fewest(m, slots) for m in range(1, length))


@pytest.mark.parametrize("slots", range(6))
@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 13, 30, 47])
def test_all_states_come_backwards_with_the_fewest_steps_run_again(length, slots):
    steps = CountedSteps()
    assert list(backwards(0, 0, length, slots, steps.advance)) == [(n, n) for n in reversed(range(length))]
    assert steps.count == fewest(length, slots)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20, None])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 41])
def test_states_are_thinned_while_the_length_is_unknown(limit, count):
    states, steps = ThinnedStates(limit), CountedSteps()
    for n in range(count):
        states.append(n)
        assert len(states._kept) <= (limit or count)
    assert list(states.backwards(steps.advance)) == [(n, n) for n in reversed(range(count))]
    assert (steps.count == 0) == (count <= (limit or count))


@pytest.mark.parametrize("max_checkpoints", [1, 2, 5, 100])
def test_the_gradient_does_not_depend_on_how_many_states_are_kept(max_checkpoints):
    field, solver, ts = Wave(), make_solver("rk4", num_steps=11), times(0, 0.7, 2)
    grads, evaluations = [], []
    for gradient in (make_gradient("direct"), make_gradient("checkpoint", max_checkpoints=max_checkpoints)):
        y0 = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
        solution = gradient.solve(solver, field, y0, ts, FirstSteps())
        grads.append(torch.autograd.grad(solution.ys.pow(2).sum(), [y0, *field.parameters()]))
        evaluations.append(solution.backward_stats.nfe)
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert (evaluations[1] == 22 * 4) == (max_checkpoints >= 22)


def test_no_checkpoint_at_all_is_refused():
    with pytest.raises(Exception, match="max_checkpoints must be at least 1, got 0"):
        make_gradient("checkpoint", max_checkpoints=0)
