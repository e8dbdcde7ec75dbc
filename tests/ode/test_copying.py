"""What is copied into a graph computes what it would if it were traced there."""

import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from node_cli.ode.graphs.copying import Repeated, inlined

ROWS = 5


def traced(function, *shapes):
    """The graph, for any number of rows, and its results for random tensors with those of the function itself."""
    mode, real = FakeTensorMode(shape_env=ShapeEnv()), [torch.rand(shape) for shape in shapes]
    with mode, torch.no_grad():
        fake = [mode.from_tensor(tensor, static_shapes=False) for tensor in real]
        graph = make_fx(function)(*fake)
    return graph, graph(*real), function(*real)


def counted(function, calls):
    def wrapped(*arguments):
        calls.append(len(arguments))
        return function(*arguments)

    return wrapped


def test_a_function_is_run_once_for_arguments_of_one_kind():
    calls = []

    def block(x, weights):
        step = Repeated(counted(lambda x, y: [x, (x * y) @ weights, y + x.shape[0]], calls))
        y, totals = x + 1, []
        for _ in range(4):
            x, y, z = step(x, y)
            totals.append(x + z)
        short = step(x[:2], y[:2])
        return [*totals, x, y, *short]

    _, found, expected = traced(block, (ROWS, 3), (3, 3))
    assert len(calls) == 2 + 5  # in the trace: of the one kind, of the other; and each time without one
    torch.testing.assert_close(found, expected)


def test_an_argument_that_comes_twice_or_a_gradient_is_traced_each_time():
    calls = []

    def twice(x, y):
        step = Repeated(counted(lambda x, y: [x - 2 * y], calls))
        (first,) = step(x, x)
        return [*step(first, x), *step(x, first)]

    _, found, expected = traced(twice, (ROWS, 3), (ROWS, 3))
    torch.testing.assert_close(found, expected)

    def differentiated(x, y):
        step = Repeated(lambda x, y: [x.sin() * y])
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (z,) = step(x, y)
            (z,) = step(z, y)
            return torch.autograd.grad(z.sum(), x)

    _, found, expected = traced(differentiated, (ROWS, 3), (ROWS, 3))
    torch.testing.assert_close(found, expected)


def test_a_graph_is_inlined_with_sizes_and_with_what_it_returns_as_it_got_it():
    mode, (x, y) = FakeTensorMode(shape_env=ShapeEnv()), torch.rand(2, ROWS, 3)

    def block(x, y):
        first, total, last = inlined(part, [x.shape[0], x, y])
        assert first is x
        assert last is y
        return [total, *inlined(part, [7, total, x]), *inlined(part, [x.shape[0], y, total])]

    with mode, torch.no_grad():
        fake = [mode.from_tensor(tensor, static_shapes=False) for tensor in (x, y)]
        part = make_fx(lambda n, x, y: [x, x * n + y, y])(fake[0].shape[0], *fake)
        graph = make_fx(block)(*fake)
        with_constant = make_fx(lambda x: [x + torch.tensor([1.0, 2.0, 3.0])])(fake[0])
        again = make_fx(lambda x: inlined(with_constant, [x]))(fake[0])
    torch.testing.assert_close(again(x), [x + torch.tensor([1.0, 2.0, 3.0])])
    total = x * ROWS + y
    torch.testing.assert_close(graph(x, y), [total, total, total * 7 + x, x, y, y * ROWS + total, total])
    torch.testing.assert_close(block(x, y), [total, total, total * 7 + x, x, y, y * ROWS + total, total])
    assert not graph.graph.find_nodes(op="call_module")
