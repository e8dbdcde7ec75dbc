"""compile=solve: the accepted steps, evaluations, gradients and failures of the plain solve, compiled once."""

import math

import pytest
import torch
from parts import make_solver
from torch import nn
from torch._dynamo.eval_frame import remove_from_cache
from torch._dynamo.utils import counters
from torch.fx.experimental.proxy_tensor import make_fx

from node_cli.models.ode_block import OdeBlock
from node_cli.ode import odeint, solve
from node_cli.ode.compilation import MANY_SOLVES, SMALL_STATE
from node_cli.ode.gradients.checkpoint import Checkpoint
from node_cli.ode.gradients.direct import Direct
from node_cli.ode.graphs.capture import Capture
from node_cli.ode.graphs.rewriting import share_results, write_out_tanh
from node_cli.ode.graphs.solve_graphs import SolveGraphs
from node_cli.ode.solution import SolveError
from node_cli.ode.tableaus import TABLEAUS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # torch's own
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]
RATES = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)  # a closure's, unlike a parameter


class Field(nn.Module):
    """Many problems by one graph: what differs are numbers in tensors."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.register_buffer("offset", torch.zeros((), dtype=torch.float64))

    def forward(self, t, y):
        a, b, c, w = self.weights
        turned = torch.stack((-y[:, 1], y[:, 0]), 1)
        return a * y + b * y**3 + c * torch.sin(3 * t) + w * turned + RATES * torch.tanh(y) + self.offset


PROBLEMS = [  # weights, the closure's rate, the end, and the tolerance
    ((-1, 0, 0, 0), 0.0, 3, 1e-4),
    ((0, -2, 0, 0), 0.0, 3, 1e-5),
    ((0, 0, 2, 0), 0.0, 3, 1e-5),
    ((0, 0, 0, 3), 0.0, 4, 1e-5),
    ((-0.1, 0, 0, 2), 0.5, -2, 1e-5),
    ((0.5, -1, 1, 1), -1.0, 3, 1e-4),
    ((-30, 0, 5, 0), 0.0, 1, 1e-3),  # with rejected attempts
    ((0.2, -0.3, 3, 5), 1.0, 2, 1e-6),
    ((0, -50, 0, 1), 0.0, 1, 1e-4),
    ((-3, 0, 0, 9), 2.0, 1, 1e-3),
]


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch):
    """These tests are about what is compiled, which would be found in a second run of them."""
    monkeypatch.setattr("node_cli.ode.graphs.remembered.SOURCE", None)


FIELD = Field()  # one for all tests: what is traced of it is kept


@pytest.fixture
def as_they_are(monkeypatch):
    """The graphs that would be compiled are run as they are: compiling takes seconds each."""

    def run_graph(graph, *, is_cpu, meanwhile):
        def run(arguments):
            own = list(arguments)
            arguments.clear()
            return graph(*own)

        return run, None

    monkeypatch.setattr("node_cli.ode.graphs.lowering.machine_code", run_graph)


@pytest.fixture
def field(as_they_are):
    FIELD.weights.data = torch.tensor((0.0, -1, 1, 2), dtype=torch.float64)
    return FIELD


def solved(
    field,
    how,
    weights=(0, -1, 1, 2),
    rate=0.5,
    end=2.0,
    tolerance=1e-4,
    batch=4,
    with_times=False,
    own=0,
    **options,
):
    """A solve and the gradients of a loss at all outputs for the state, the weights, the closure, perhaps the times."""
    field.weights.data = torch.tensor(weights, dtype=torch.float64)
    RATES.data = torch.tensor(rate, dtype=torch.float64)
    y0 = torch.linspace(-1, 1.5, 2 * batch, dtype=torch.float64).view(batch, 2).requires_grad_()
    ts = torch.linspace(0, end, 4, dtype=torch.float64)
    if own:
        ts = rows_of_times(batch)[:, -own:]
    ts.requires_grad_(with_times)
    keys = {"method": "bosh3", "rtol": tolerance, "atol": tolerance, **options}
    solution = solve(field, y0, ts, compile=how, **keys)
    wanted = (y0, field.weights, RATES, *([ts] if with_times else []))
    grads = torch.autograd.grad(torch.sin(solution.ys).sum(), wanted)
    return solution, grads


def rows_of_times(batch):
    """For each sample, through the same stretch or less of it: one backwards, one that ends early, one that pauses."""
    ts = torch.linspace(0.3, 1.2, batch, dtype=torch.float64)[:, None] * torch.tensor([0, 0.2, 0.5, 1.0, 1.7])
    ts[0] *= -1
    ts[1, 3:] = ts[1, 2]
    ts[2, 2] = ts[2, 1]
    return ts


def assert_equal(one, other):
    (solution, grads), (found, found_grads) = one, other
    torch.testing.assert_close(found.ys, solution.ys, rtol=1e-11, atol=1e-11)
    assert found.stats.step_sizes == pytest.approx(solution.stats.step_sizes, rel=1e-9)
    for key in ("nfe", "num_accepted", "num_rejected"):
        assert vars(found.stats)[key] == vars(solution.stats)[key]
    for grad, expected in zip(found_grads, grads, strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-11, atol=1e-11 * float(1 + expected.abs().max()))


@pytest.fixture
def uncompiled(field):
    """A vector field of which nothing is traced as yet."""
    new = Field()
    new.weights.data = field.weights.data.clone()
    return new


@pytest.fixture
def one_step(monkeypatch):
    """A step a block, instead of two: to trace and to compile it takes half as long."""
    monkeypatch.setattr("node_cli.ode.graphs.field_graph.FEW_OPERATIONS", 0)


@pytest.mark.usefixtures("one_step")
def test_ten_problems_take_the_same_steps_and_have_the_same_gradients_and_nothing_is_compiled_again():
    """In machine code."""
    field = Field()
    solved(field, "solve")  # without anything compiled as yet
    first = solved(field, "solve")
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    assert_equal(solved(field, "none"), first)
    for weights, rate, end, tolerance in PROBLEMS:
        keys = {"weights": weights, "rate": rate, "end": end, "tolerance": tolerance, "batch": 3}
        assert_equal(solved(field, "none", **keys), solved(field, "solve", **keys))
    assert counters["stats"]["unique_graphs"] == graphs


FAILURES = [
    {"max_nfe": 9},
    {"max_nfe": 1},
    {"max_steps": 2},
    {"weights": (-1e6, 0, 0, 0), "end": 100.0, "max_nfe": 300},  # which must not go on to the end
    {"weights": (0, 8, 0, 0)},  # it grows without bound
    {"weights": (float("nan"), 0, 0, 0)},
]


@pytest.mark.parametrize("keys", FAILURES)
def test_failures_are_those_of_the_plain_solve(field, keys):
    solved(field, "solve")  # the first solve of all is a plain one
    found = []
    for how in ("none", "solve"):
        with pytest.raises(SolveError) as caught:
            solved(field, how, **keys)
        found.append(caught.value)
    plain, compiled = found
    assert (compiled.status, compiled.nfe, compiled.detail) == (plain.status, plain.nfe, plain.detail)
    assert compiled.t == pytest.approx(plain.t, rel=1e-9)


def test_a_buffer_that_changes_between_the_passes_is_refused(field):
    y0 = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    keys = {"method": "bosh3", "rtol": 1e-4, "atol": 1e-4, "compile": "solve"}
    for gradient in ("direct", "direct", Checkpoint(max_checkpoints=None)):  # by steps run again, kept, and run again
        solution = solve(field, y0, torch.linspace(0, 1, 4, dtype=torch.float64), gradient=gradient, **keys)
        field.offset += 1
        with pytest.raises(ValueError, match=r"^the vector field has changed since the solve"):
            solution.ys.sum().backward()
        field.offset -= 1


KEPT = [  # how many steps a block has, whether outputs are made in the blocks, the evaluations of a step, and keys
    (2, True, 4, {"method": "bosh3", "tolerance": 2e-4}),
    (1, False, 4, {"method": "bosh3", "end": -0.2}),
    (1, True, 4, {"method": "bosh3", "outputs": "step", "tolerance": 1e-3}),
    (2, False, 2, {"method": "midpoint", "step_size": 0.3}),
]


@pytest.mark.parametrize(("num_steps", "adds_up", "num_stages", "keys"), KEPT)
def test_what_is_kept_of_steps_gives_the_gradient_of_running_them_again(
    uncompiled, monkeypatch, num_steps, adds_up, num_stages, keys
):
    monkeypatch.setattr("node_cli.ode.graphs.solve_graphs.FEW_NUMBERS", 1024 * adds_up)
    monkeypatch.setattr("node_cli.ode.graphs.field_graph.FEW_OPERATIONS", 100 * (num_steps - 1))
    plain = solved(uncompiled, "none", **keys)
    solved(uncompiled, "solve", **keys)
    kept, again = (
        solved(uncompiled, "solve", gradient=gradient, **keys) for gradient in (None, Checkpoint(max_checkpoints=None))
    )
    assert num_steps == 1 or kept[0].stats.num_accepted % num_steps  # so that the last block is filled up
    assert_equal(plain, kept)
    assert_equal(plain, again)
    assert kept[0].backward_stats.nfe == (num_stages == 4)  # the first slope, where the last one is shared
    assert again[0].backward_stats.nfe == again[0].stats.num_accepted * num_stages


@pytest.mark.usefixtures("one_step")
def test_a_solve_with_two_outputs_and_one_whose_times_have_gradients_by_blocks_that_keep(uncompiled):
    y0 = torch.tensor([[1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    for with_times in (False, False, True):
        ts = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=with_times)
        found = []
        for how in ("none", "solve"):
            ys = odeint(uncompiled, y0, ts, 1e-6, 1e-6, compile=how)
            found.append(torch.autograd.grad(ys[-1].sum(), [y0, uncompiled.weights, *([ts] if with_times else [])]))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


class Overflowing(nn.Module):
    """The derivative of its second term is no number where the exponential is infinite."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(-40.0, dtype=torch.float64))

    def forward(self, t, y):
        return self.rate * y + 1 / (1 + torch.exp(-30 * y))


@pytest.mark.usefixtures("uncompiled", "one_step")
def test_a_rejected_attempt_leaves_nothing_in_the_gradient():
    field, y0 = Overflowing(), torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    keys = {"method": "bosh3", "rtol": 1e-3, "atol": 1e-3, "first_step": 1.0}
    found = []
    for how in ("none", "solve", "solve"):
        solution = solve(field, y0, [0.0, 1.0], compile=how, **keys)
        assert solution.stats.num_rejected
        found.append(torch.autograd.grad(solution.ys[-1].sum(), [y0, field.rate]))
    for one, other in zip(found[0], found[2], strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-11)


def test_a_weight_with_other_data_by_the_backward_pass_counts_as_it_was(field):
    found = []
    solved(field, "solve")
    for how in ("none", "solve"):
        field.weights.data = torch.tensor((0.0, -1, 1, 2), dtype=torch.float64)
        y0 = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
        ys = odeint(field, y0, [0.0, 0.5, 1.0], 1e-4, 1e-4, method="bosh3", compile=how)
        field.weights.data = torch.zeros(4, dtype=torch.float64)
        found.append(torch.autograd.grad(ys.sum(), [y0, field.weights]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-11, atol=1e-11)


@pytest.mark.usefixtures("one_step")
def test_machine_code_and_second_derivatives_and_solves_without_a_gradient():
    """By a method without a shared stage."""
    found, field = [], Field()
    field.weights.data = torch.tensor((0.0, -1, 1, 2), dtype=torch.float64)
    for how in ("none", "solve", "solve"):
        y0 = torch.full((3, 2), 0.5, dtype=torch.float64, requires_grad=True)
        keys = {"method": "adaptive_heun", "rtol": 0.1, "atol": 0.1, "first_step": 0.4, "compile": how}
        ys = solve(field, y0, [0.0, 0.2, 0.4], **keys).ys
        (first,) = torch.autograd.grad(ys.pow(2).sum(), y0, retain_graph=True)
        (grad,) = torch.autograd.grad(ys.pow(2).sum(), y0, create_graph=True)
        (second,) = torch.autograd.grad(grad.pow(2).sum(), y0)
        with torch.inference_mode():
            alone = solve(field, y0, [0.0, 0.2, 0.4], **keys).ys
        found.append((ys, first, grad, second, alone))
    for plain, uncompiled, compiled in zip(*found, strict=True):
        torch.testing.assert_close(uncompiled, plain, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(compiled, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("keys", [{"num_steps": 3}, {"step_size": 0.3}], ids=["to the outputs", "through the outputs"])
def test_steps_of_a_grid_are_those_of_the_plain_solve(uncompiled, monkeypatch, keys):
    field = uncompiled
    if "num_steps" not in keys:
        monkeypatch.setattr("node_cli.ode.graphs.field_graph.FEW_OPERATIONS", 0)
    else:
        monkeypatch.setattr("node_cli.ode.graphs.solve_graphs.FEW_NUMBERS", 0)
    for more in ({}, {"end": -0.3, "batch": 3}, {"with_times": True}):
        options = {"method": "midpoint", **keys, **more}
        assert_equal(solved(field, "none", **options), solved(field, "solve", **options))
    found = []
    for how in ("none", "solve"):
        with pytest.raises(SolveError) as caught:
            solved(field, how, method="midpoint", weights=(0, 1e9, 0, 0), **keys)
        found.append((caught.value.status, caught.value.t))
    assert found[0] == found[1]


@pytest.mark.parametrize("method", ["dopri5", "adaptive_heun"])
def test_methods_with_and_without_a_shared_stage_and_times_that_have_gradients(uncompiled, monkeypatch, method):
    if method == "dopri5":
        monkeypatch.setattr("node_cli.ode.graphs.field_graph.FEW_OPERATIONS", 0)
    else:  # all outputs at once
        monkeypatch.setattr("node_cli.ode.graphs.solve_graphs.FEW_NUMBERS", 0)
    for keys in ({}, {"end": -0.2}):
        options = {"method": method, "with_times": True, **keys}
        plain = solved(uncompiled, "none", **options)
        solved(uncompiled, "solve", **options)  # says how many attempts there are
        assert_equal(plain, solved(uncompiled, "solve", **options))


@pytest.mark.usefixtures("one_step")
def test_a_first_step_another_controller_and_another_norm(uncompiled):
    largest = {"norm": "max", "max_step": 0.7}  # of two that differ in the controller alone
    for keys in ({"first_step": 0.3, "tolerance": 1e-3}, {"pcoeff": 0.2, **largest}, {"safety": 0.7, **largest}):
        solved(uncompiled, "solve", **keys)
        assert_equal(solved(uncompiled, "none", **keys), solved(uncompiled, "solve", **keys))


OWN_STEPS = [
    {"batching": "per_sample"},
    {"batching": "per_sample", "own": 2, "with_times": False},
    {"batching": "per_sample", "own": 5, "method": "adaptive_heun", "tolerance": 1e-2},
    {"batching": "per_sample", "own": 5, "outputs": "step", "first_step": 0.4},
    {"own": 5},
    {"own": 5, "outputs": "step", "max_step": 0.5},
    {"outputs": "step"},
    {"own": 5, "method": "midpoint", "num_steps": 2},
    {"own": 5, "method": "rk4", "step_size": 0.4},
]


@pytest.mark.parametrize("keys", OWN_STEPS, ids=str)
def test_steps_and_times_of_each_samples_own_and_steps_that_end_at_outputs(uncompiled, monkeypatch, keys):
    monkeypatch.setattr("node_cli.ode.graphs.places.MOST_NUMBERS", 100)  # outputs of a few steps at once
    if keys != {"batching": "per_sample"}:  # tracing blocks of one step takes half as long
        monkeypatch.setattr("node_cli.ode.graphs.field_graph.FEW_OPERATIONS", 0)
    options = {"with_times": True, "batch": 5, **keys}
    plain = solved(uncompiled, "none", **options)
    solved(uncompiled, "solve", **options)
    found = solved(uncompiled, "solve", **options)
    assert_equal(plain, found)
    next_step = plain[0].stats.next_step
    assert found[0].stats.next_step == (next_step and pytest.approx(next_step, rel=1e-9))
    options["batch"] = 3  # by the same graphs
    assert_equal(solved(uncompiled, "none", **options), solved(uncompiled, "solve", **options))


@pytest.mark.usefixtures("one_step")
def test_rows_that_stay_at_one_time_take_no_step(uncompiled):
    ts, y0 = torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        solution = solve(uncompiled, y0, ts, rtol=1e-3, atol=1e-3, batching="per_sample", compile="solve")
        (grad,) = torch.autograd.grad(solution.ys.sum(), y0)
        assert (solution.stats.num_accepted, grad.tolist()) == (0, [[2.0, 2.0]] * 3)


OWN_FAILURES = [{"max_nfe": 9}, {"max_steps": 2}, {"weights": (0, 8, 0, 0)}]


@pytest.mark.usefixtures("one_step")
@pytest.mark.parametrize("batching", ["joint", "per_sample"])
def test_failures_at_own_times_are_those_of_the_plain_solve(uncompiled, batching):
    solved(uncompiled, "solve", own=5, batching=batching)
    for keys in OWN_FAILURES:
        found = []
        for how in ("none", "solve", "solve"):
            with pytest.raises(SolveError) as caught:
                solved(uncompiled, how, own=5, batching=batching, **keys)
            found.append((caught.value.status, caught.value.nfe, caught.value.detail))
        assert found[0] == found[1] == found[2]


class Twins(nn.Module):
    """Two weights with one gradient."""

    def __init__(self):
        super().__init__()
        self.one, self.other = (nn.Parameter(torch.full((2,), 0.5, dtype=torch.float64)) for _ in range(2))

    def forward(self, t, y):
        return y * torch.sin(self.one + self.other)


@pytest.mark.usefixtures("uncompiled", "one_step")
def test_weights_with_one_gradient_have_it_in_tensors_of_their_own():
    field, found = Twins(), []
    for how in ("none", "solve", "solve"):
        y0 = torch.ones(3, 2, dtype=torch.float64)
        ys = solve(field, y0, [0.0, 3.0], method="euler", num_steps=1, compile=how).ys  # of more, sums are made
        found.append(torch.autograd.grad(ys[-1].sum(), (field.one, field.other)))
    for grad in found[2]:
        torch.testing.assert_close(grad, found[0][0], rtol=1e-11, atol=0)
    found[2][0].zero_()
    assert found[2][1].all()


def test_what_evaluations_compute_alike_is_computed_once():
    def evaluations(x, weight):
        return torch.sin(weight.exp() * x), torch.cos(weight.exp() * x), x + 1, x + 1.0

    arguments = torch.arange(3), torch.ones(3)
    graph = make_fx(evaluations)(*arguments)
    share_results(graph)
    assert len(graph.graph.find_nodes(op="call_function", target=torch.ops.aten.exp.default)) == 1
    for found, expected in zip(graph(*arguments), evaluations(*arguments), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_tanh_is_written_out_to_a_few_units_in_the_last_place():
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.logspace(-40, 0, 100_001), torch.tensor([0.0, math.inf])])
    graph = make_fx(torch.tanh)(x)
    for node in graph.graph.nodes:
        node.meta["val"] = x
    write_out_tanh(graph)
    assert not graph.graph.find_nodes(op="call_function", target=torch.ops.aten.tanh.default)
    exact = torch.tanh(x.double())
    assert ((graph(x) - exact).abs() <= 7 * torch.finfo(torch.float32).eps * exact.abs() + 1e-44).all()
    assert graph(x).abs().max() <= 1
    assert graph(torch.tensor([math.nan])).isnan().all()


class Switched(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate, self.scale = nn.Parameter(torch.tensor(0.5)), 1.0

    def forward(self, t, y):
        return self.scale * (self.rate if self.training else -self.rate) * y


def test_a_graph_is_asked_for_again_where_the_vector_field_has_changed(uncompiled, monkeypatch):
    monkeypatch.setattr("node_cli.ode.graphs.field_graph.FEW_OPERATIONS", 0)
    found = {}
    for how in ("none", "solve"):
        field, found[how] = Switched(), []

        def solve_again(field, times=1, *, how=how):
            for _ in range(times):
                ys = odeint(field, torch.ones(2, 1), [0.0, 1.0], 1e-4, 1e-4, method="bosh3", compile=how)
                found[how].append((ys[-1], *torch.autograd.grad(ys.sum(), field.rate)))

        solve_again(field, times=4)
        field.rate = nn.Parameter(torch.tensor(-0.8))
        solve_again(field, times=2)
        field.eval()
        solve_again(field, times=2)
        field.train()
        field.scale = 2.0
        solve_again(field, times=2)
    for plain, compiled in zip(*found.values(), strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-6)


def test_a_graph_that_the_compiler_has_given_up_is_found_again():
    capture, y = Capture(Switched(), "cpu"), torch.ones(2, 1)
    graph, inputs = capture(y, by_sample=False)
    assert capture(y, by_sample=False) == (graph, inputs)
    remove_from_cache(capture._function)
    again, inputs_again = capture(y, by_sample=False)
    assert again is not graph
    assert inputs_again == inputs


class Repeated(nn.Module):
    """A state of float32 by layers as networks have them."""

    def __init__(self, width):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(width, 9), nn.Tanh(), nn.Linear(9, 9), nn.Softplus(), nn.Linear(9, width))

    def forward(self, t, y):
        return self.net(y) * torch.cos(t)


def test_a_network_in_float32_under_autocast_and_with_repeated_times(uncompiled):
    found, width = [], 2
    network = Repeated(width)
    ts = torch.tensor([0.0, 0.0, 0.4, 1.0, 1.0], dtype=torch.float64)
    for how in ("none", "solve", "solve"):
        y0 = torch.linspace(-1, 1, 5 * width).view(5, width).requires_grad_()
        ys = solve(network, y0, ts, method="bosh3", rtol=1e-5, atol=1e-5, compile=how).ys
        grads = torch.autograd.grad(ys.square().sum(), (y0, *network.parameters()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = solve(network, y0, ts, method="bosh3", rtol=1e-2, atol=1e-2, compile=how).ys
        assert rough.dtype == torch.float32
        found.append((ys, *grads))
    for plain, compiled in zip(found[0], found[2], strict=True):
        assert (plain - compiled).norm() <= 1e-5 * plain.norm()


def test_an_ode_block_goes_by_the_number_of_solves_and_a_smaller_batch_needs_nothing_more(uncompiled):
    field, times = Repeated(3), {"t0": 0.0, "t1": 1.0, "learn_times": False}
    block, plain = (
        OdeBlock(field, make_solver("bosh3", compile=how, first_step="carried"), Direct(), **times)
        for how in ("auto", "none")
    )
    block.planned_solves = MANY_SOLVES - 1
    assert not block.is_compiled(torch.ones(6, 3))
    block.planned_solves = MANY_SOLVES
    assert block.is_compiled(torch.ones(6, 3))
    assert not block.eval().is_compiled(torch.ones(6, 3))
    block.train()
    assert not block.is_compiled(torch.ones(SMALL_STATE, 3))
    assert not block.is_compiled(torch.ones(2, 3, 4, 4))
    for batch in (6, 6, 5):
        y0 = torch.rand(batch, 3)
        torch.testing.assert_close(block(y0), plain(y0), rtol=1e-5, atol=1e-5)
        assert block.stats.nfe == plain.stats.nfe
        assert block.first_steps.forward == pytest.approx(plain.first_steps.forward, rel=1e-2)


@pytest.mark.parametrize("part", ["traced", "machine_code"])
def test_where_a_part_cannot_be_compiled_the_solve_goes_on_plainly(monkeypatch, field, caplog, part):
    def broken(*arguments, **keys):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(f"node_cli.ode.graphs.lowering.{part}", broken)
    new = Field()
    keys = {"method": "euler", "num_steps": 2}
    assert_equal(solved(new, "none", **keys), solved(new, "solve", **keys))
    lines = [line for line in caplog.messages if line.startswith("compile=solve cannot compile this vector field")]
    assert len(lines) == 1
    assert "no such instruction" in lines[0]


class Branching(nn.Module):
    def forward(self, t, y):
        return -y if y.sum() > 0 else y


class Noisy(nn.Module):
    def forward(self, t, y):
        return -y + 0 * torch.rand_like(y)


@pytest.mark.parametrize(("make", "reason"), [(Branching, "Data-dependent"), (Noisy, "it draws random numbers")])
def test_what_cannot_be_compiled_as_a_whole_is_said_in_one_line(make, reason, caplog):
    y0, field = torch.ones(2, 2, dtype=torch.float64), make()
    results = []
    for how in ("none", "solve", "solve"):
        with torch.no_grad():
            results.append(solve(field, y0, [0.0, 1.0], method="euler", num_steps=2, compile=how).ys)
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])
    lines = [line for line in caplog.messages if line.startswith("compile=solve cannot compile this vector field")]
    assert len(lines) == 1
    assert reason in lines[0]


class OwnDerivative(nn.Module):
    """With a derivative inside, as the trace in a flow."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, t, y):
        dy, pull = torch.func.vjp(lambda y: torch.sin(self.weight * y), y)
        return dy + pull(torch.ones_like(dy))[0]


def test_derivatives_in_a_field_are_the_same_with_gradients_and_without():
    field, t, y = OwnDerivative(), torch.tensor(0.0), torch.linspace(-1, 1, 6).view(3, 2)
    found = Capture(field, "cpu")(y, by_sample=False)
    assert found is not None
    slope, expected = found[0].slope(found[1]), torch.sin(2 * y) + 2 * torch.cos(2 * y)
    torch.testing.assert_close(slope(t, y), expected)
    with torch.no_grad():  # as the steps forward are compiled
        torch.testing.assert_close(slope(t, y), expected)
        assert not slope(t, y).requires_grad


def test_what_is_not_taken_yet_is_a_compiled_step_and_one_line(field, caplog):
    norm, twice = {"norm": lambda error: error.abs().max()}, {"ts": [0.0, 0.1, 0.1], "outputs": "step"}
    few = {"gradient": Checkpoint(max_checkpoints=2)}
    for options in (norm, twice, few):
        keys = {"ts": [0.0, 0.1], "method": "bosh3", "rtol": 1e-2, "atol": 1e-2, "compile": "solve", **options}
        with torch.no_grad():
            solve(field, torch.ones(2, 2, dtype=torch.float64), **keys)
    with torch.no_grad():
        solve(lambda t, y: -y, torch.ones(2, 1, 1), [0.0, 0.1], method="euler", num_steps=1, compile="solve")
    lines = [line for line in caplog.messages if line.startswith("compile=solve cannot compile this solve as a whole")]
    assert [line.rpartition(": ")[2] for line in lines] == [
        "the norm of an error is a function",
        "adaptive steps end at output times, some of them equal",
        "the gradient keeps no states (adjoint), or few (max_checkpoints)",
        "the state has more dimensions than (batch, features)",
    ]


def test_on_a_processor_large_states_have_blocks_of_one_step():
    """Two steps together would take no less time, and more memory."""
    sizes = []
    for width in (2, SMALL_STATE):
        found = Capture(lambda t, y: torch.tanh(y), "cpu")(torch.zeros(2, width), by_sample=False)
        graphs = SolveGraphs(*found, TABLEAUS["euler"], print)
        sizes.append(graphs.blocks(by_sample=False, num_outputs=2, interpolates=False, size=4).most)
    assert sizes == [2, 1]
