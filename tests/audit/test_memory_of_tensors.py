"""Bytes that are counted while tensors are made, against counts by hand."""

import pytest
import torch
from parts import make_gradient, make_solver

from node_cli.audit.backward_pass import TensorMemory
from node_cli.ode.solution import FirstSteps

SIZE = 4096  # bytes of every tensor here, but for single numbers
NUMBERS = SIZE // 4


def leaf():
    return torch.zeros(NUMBERS, requires_grad=True)


def chain(y, count):
    for _ in range(count):
        y = y.sin()
    return y


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_graph_keeps_every_tensor(count):
    y = leaf()
    with TensorMemory() as memory:
        chain(y, count)
    assert memory.peak == count * SIZE


@pytest.mark.parametrize("count", [2, 7])
def test_without_a_graph_two_are_there_at_once(count):
    y = leaf()
    with torch.no_grad(), TensorMemory() as memory:
        chain(y, count)
    assert memory.peak == 2 * SIZE


def test_tensors_that_an_operation_returns_in_a_list_are_counted():
    with TensorMemory() as memory:
        made = torch._foreach_add([torch.zeros(NUMBERS), torch.zeros(NUMBERS)], 1.0)
    assert (len(made), memory.peak) == (2, 4 * SIZE)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_tensors_of_a_backward_pass_are_counted(count):
    """On top of the chain: the gradient handed in, the cosine, and their product."""
    y = leaf()
    with TensorMemory() as memory:
        torch.autograd.grad(chain(y, count), y, torch.ones(NUMBERS))
    assert memory.peak == (count + 3) * SIZE


def test_views_and_operations_in_place_share_what_they_work_on():
    with TensorMemory() as memory:
        y = torch.ones(NUMBERS)
        y.view(4, -1).t()[1:].mul_(2)
        y.add_(1)
        y.detach()
    assert memory.peak == SIZE


def test_a_view_counts_as_all_that_it_keeps():
    with TensorMemory() as memory:
        kept = torch.ones(NUMBERS)[:1]
        torch.ones(NUMBERS)
    assert memory.peak == 2 * SIZE
    assert kept.numel() == 1


def test_several_results_of_one_operation_are_all_counted():
    y = torch.arange(1000.0)
    with TensorMemory() as memory:
        torch.sort(y)
    assert memory.peak == 1000 * (4 + 8)


def test_results_that_share_their_memory_count_once():
    y, bias = torch.ones(1, 1, 3 * NUMBERS), torch.zeros(3 * NUMBERS)
    with TensorMemory() as memory:
        torch._transform_bias_rescale_qkv(y, bias, 1)
    assert memory.peak == 3 * SIZE


def test_what_was_there_before_is_not_counted():
    y = leaf()
    with torch.no_grad(), TensorMemory() as memory:
        y.view(2, -1).add_(1)
    assert memory.peak == 0


def test_numbers_from_python_are_counted():
    numbers = [0.0] * NUMBERS
    with TensorMemory() as memory:
        torch.tensor(numbers).view(2, -1)
    assert memory.peak == SIZE


def test_a_graph_that_is_dropped_makes_room():
    y = leaf()
    with TensorMemory() as memory:
        for _ in range(3):
            chain(y, 5)
        held = chain(y, 2)
        torch.autograd.backward(held, torch.ones(NUMBERS))
        del held
        chain(y, 6)
    assert memory.peak == (1 + 6) * SIZE  # the gradient of y stays


def test_the_peak_stays_when_memory_is_closed():
    with TensorMemory() as memory:
        torch.ones(NUMBERS)
    torch.ones(10 * NUMBERS)
    assert memory.peak == SIZE


def peak_of_a_solve(gradient, num_steps):
    """Of a solve by rk4 and its gradient; a state has SIZE bytes."""
    y0, ts = torch.ones(2, NUMBERS // 2, requires_grad=True), torch.tensor([0.0, 1.0], dtype=torch.float64)
    solver = make_solver("rk4", num_steps=num_steps)
    with TensorMemory() as memory:
        solution = make_gradient(gradient).solve(solver, lambda t, y: torch.sin(y), y0, ts, FirstSteps())
        solution.ys[-1].sum().backward()
    return memory.peak


@pytest.mark.parametrize(("gradient", "states_per_step"), [("checkpoint", 1), ("direct", 4), ("adjoint", 0)])
def test_what_a_step_of_a_solve_adds(gradient, states_per_step):
    """`direct` keeps the four states whose slopes it takes, `checkpoint` the one it starts from."""
    few, more, many = (peak_of_a_solve(gradient, num_steps) for num_steps in (3, 6, 12))
    times = 8  # numbers of 8 bytes a step, at most
    assert more - few == pytest.approx(3 * states_per_step * SIZE, abs=3 * 8 * times)
    assert many - more == pytest.approx(6 * states_per_step * SIZE, abs=6 * 8 * times)
