"""Compiled functions as CUDA graphs: memory of their own, sizes, parameters that move, and what is not captured."""

import pytest
import torch
from torch import nn

from node_cli.ode import solve
from node_cli.ode.graphs import cuda_graphs
from node_cli.ode.graphs.cuda_graphs import Replayed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU is needed")


def scaled(arguments):
    """Of a state, times and a weight; it empties the list, as compiled functions do."""
    y, ts, weight = arguments
    arguments.clear()
    return y * weight, ts.cumsum(0), y


def assert_right(replayed, y, ts, weight):
    results = replayed([y, ts, weight])
    for found, expected in zip(results, scaled([y, ts, weight]), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    return results


@pytest.fixture
def weight():
    return nn.Parameter(torch.full((), 3.0, device="cuda"))


def drawn(batch=4, times=3):
    return torch.randn(batch, 2, device="cuda"), torch.rand(times, dtype=torch.float64, device="cuda")


def test_results_are_those_of_the_function_and_lie_in_memory_of_their_own(weight):
    replayed, kept = Replayed(scaled, "it"), []
    for _ in range(5):
        y, ts = drawn()
        kept += [(y * weight, assert_right(replayed, y, ts, weight)[0])]
    assert len(replayed._graphs) == 1
    for expected, found in kept:
        assert torch.equal(found, expected)
    with torch.inference_mode():
        assert_right(replayed, *drawn(), weight)
    assert_right(replayed, *drawn(), weight)


def test_other_sizes_have_graphs_of_their_own_up_to_a_number(weight):
    replayed = Replayed(scaled, "it")
    for batch in range(1, cuda_graphs.MOST_GRAPHS + 3):
        for _ in range(3):
            assert_right(replayed, *drawn(batch), weight)
    assert len(replayed._graphs) == cuda_graphs.MOST_GRAPHS


def test_sizes_that_are_met_once_are_not_captured(weight):
    replayed = Replayed(scaled, "it")
    for batch in range(1, 5):
        assert_right(replayed, *drawn(batch), weight)
    assert not replayed._graphs


def test_parameters_may_change_in_place_and_move(weight):
    replayed = Replayed(scaled, "it")
    for _ in range(3):
        assert_right(replayed, *drawn(), weight)
    with torch.no_grad():
        weight.fill_(5.0)
    assert_right(replayed, *drawn(), weight)
    for number in (7.0, 8.0, 9.0):
        before = weight.data
        weight.data = torch.full((), number, device="cuda")
        assert weight.data_ptr() != before.data_ptr()
        assert_right(replayed, *drawn(), weight)
    assert len(replayed._graphs) == 1


def test_another_stream_has_graphs_of_its_own(weight):
    replayed = Replayed(scaled, "it")
    for stream in (torch.cuda.Stream(), torch.cuda.Stream()):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                assert_right(replayed, *drawn(), weight)
        stream.synchronize()
    assert len(replayed._graphs) == 2


def test_what_cannot_be_captured_runs_as_it_is_and_is_said_once(weight, caplog):
    def read(arguments):
        number = arguments[0].sum().item()  # the host waits
        return [result * number for result in scaled(arguments)]

    replayed, stream = Replayed(read, "it"), torch.cuda.current_stream()
    for _ in range(4):
        y, ts = drawn()
        found, expected = replayed([y, ts, weight]), read([y, ts, weight])
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert torch.cuda.current_stream() == stream
    assert len([line for line in caplog.messages if line.startswith("it of the solve is no CUDA graph")]) == 1


def test_a_number_on_the_host_is_not_taken_for_a_constant(weight, caplog):
    replayed = Replayed(scaled, "it")
    for number in range(4):
        assert_right(replayed, *drawn(), torch.tensor(float(number)))
    assert "a tensor that is not on the GPU" in caplog.text


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([-1.0, 2.0], dtype=torch.float64))

    def forward(self, t, y):
        rate, turn = self.weights
        return rate * y**3 + turn * torch.stack([-y[:, 1], y[:, 0]], 1)


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["joint", "per_sample"])
def test_solves_and_gradients_are_those_of_the_plain_solve(batching, caplog):
    field, kept = Field().cuda(), []
    for batch in (4, 4, 4, 4, 3, 3, 3):
        y0 = torch.rand(batch, 2, dtype=torch.float64, device="cuda", requires_grad=True)
        outcomes = []
        for how in ("none", "solve"):
            keys = {"method": "bosh3", "rtol": 1e-4, "atol": 1e-4, "batching": batching, "compile": how}
            solution = solve(field, y0, [0.0, 0.4, 1.0, 2.0], **keys)
            grads = torch.autograd.grad(solution.ys.sin().sum(), (y0, field.weights))
            outcomes.append((solution.ys, *grads))
            steps = solution.stats.num_accepted, solution.stats.nfe
            kept.append((steps, outcomes[-1]))
        assert kept[-1][0] == kept[-2][0]
    for (_, plain), (_, compiled) in zip(kept[::2], kept[1::2], strict=True):
        for found, expected in zip(compiled, plain, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert not caplog.messages
