"""Compiled vector fields and steps: the same results, compiled once, and one line where nothing compiles."""

import pytest
import torch
from problems import times
from torch import nn
from torch._dynamo.utils import counters

from node_cli.ode import solve
from node_cli.ode.compilation import can_compile
from node_cli.ode.gradients.checkpoint import Checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # torch's own
]
WARNS = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch looks at it


def test_this_machine_compiles():
    assert can_compile("cpu"), "without this, nothing below is tested"


class Swirl(nn.Module):
    """A small network that depends on time; its `pull` is computed from an encoder, where it has one."""

    def __init__(self, encoder=False):
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(3, 8, dtype=torch.float64)
        self.out = nn.Linear(8, 3, dtype=torch.float64)
        self.encoder = [torch.tensor(0.7, dtype=torch.float64, requires_grad=True)] if encoder else []
        self.pull = None

    def forward(self, t, y):
        dy = self.out(torch.tanh(self.hidden(y) + torch.sin(3 * t)))
        return dy if self.pull is None else dy - self.pull * y


@pytest.fixture(scope="module")
def plain():
    """One for several tests: what is compiled of it is kept."""
    return Swirl()


@pytest.fixture(scope="module")
def encoded():
    return Swirl(encoder=True)


@pytest.fixture(scope="module")
def traced():
    """One for tests without machine code, which is kept as well."""
    return Swirl(encoder=True)


@pytest.fixture
def without_machine_code(monkeypatch):
    """Graphs are found and differentiated as ever, and run as they are: a compiler would take seconds for each."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile(function, backend="aot_eager"))


def solved(field, ts=(0, 0.3, 0.5, 1.2), own_times=False, **options):
    """A solve, and the gradients of a loss at all output times for state, times, parameters and the encoder.

    By the method with the fewest stages that has all there is: an error, an interpolant and a shared stage.
    """
    torch.manual_seed(1)
    y0 = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    ts = times(*ts, requires_grad=not own_times)
    if own_times:
        ts = (ts + torch.linspace(-0.1, 0.1, 4, dtype=torch.float64)[:, None]).requires_grad_()
    for encoder in field.encoder:
        field.pull = encoder**2
    solution = solve(field, y0, ts, **{"method": "bosh3", "rtol": 1e-4, "atol": 1e-4, **options})
    loss = (solution.ys * torch.randn(solution.ys.shape, dtype=torch.float64)).pow(2).sum()
    return solution, torch.autograd.grad(loss, [y0, ts, *field.parameters(), *field.encoder])


def assert_equal_but_for_rounding(field, compile, **options):
    """The solution of the compiled solve."""
    (expected, grads), (solution, found) = solved(field, **options), solved(field, **options, compile=compile)
    for one, other in zip([expected.ys, *grads], [solution.ys, *found], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
        assert one.abs().max() > 0.01
    return solution


def test_a_compiled_vector_field_changes_rounding_only(plain):
    assert_equal_but_for_rounding(plain, "vector_field")


@pytest.mark.usefixtures("without_machine_code")
def test_a_compiled_vector_field_takes_a_time_for_each_sample():
    counters.clear()
    assert_equal_but_for_rounding(Swirl(), "vector_field", batching="per_sample")
    assert counters["stats"]["unique_graphs"] >= 1


@WARNS
@pytest.mark.usefixtures("without_machine_code")
def test_compiled_steps_change_rounding_only_and_none_is_compiled_again(traced):
    """Steps with and without outputs inside are two things to compile, at most; their times and lengths are none.

    With an encoder: its tensor gets its gradient through compiled steps too.
    """
    counters.clear()
    for end in (1.0, 0.5, 1.7, 2.2):
        solution = assert_equal_but_for_rounding(traced, "step", ts=(0, 0.1, end, 3))
        assert solution.stats.num_accepted > 2
    assert 1 <= counters["stats"]["unique_graphs"] <= 3
    assert sum(counters["recompiles"].values()) == 0


@WARNS
@pytest.mark.usefixtures("without_machine_code")
@pytest.mark.parametrize("gradient", [Checkpoint(max_checkpoints=2), "adjoint"])
def test_traced_steps_change_rounding_only(gradient, traced):
    assert_equal_but_for_rounding(traced, "step", gradient=gradient)


@WARNS
@pytest.mark.parametrize("gradient", ["direct", Checkpoint(max_checkpoints=2), "adjoint"])
def test_compiled_steps_change_rounding_only(gradient, encoded):
    """The machine code of steps: those of each sample do all that joint ones do."""
    assert_equal_but_for_rounding(encoded, "step", gradient=gradient, batching="per_sample")
    counters.clear()
    assert_equal_but_for_rounding(encoded, "step", gradient=gradient, batching="per_sample", own_times=True)
    assert counters["stats"].get("unique_graphs", 0) == 0


def test_a_method_without_a_shared_stage(plain):
    assert_equal_gradients(plain, {"method": "midpoint", "num_steps": 3})


@pytest.mark.usefixtures("without_machine_code")
def test_a_method_with_an_error_and_without_a_shared_stage(plain):
    assert_equal_gradients(plain, {"method": "heun", "rtol": 1e-3})


def assert_equal_gradients(plain, options):
    one, other = gradients_of(plain, options), gradients_of(plain, options | {"compile": "step"})
    for expected, found in zip(one, other, strict=True):
        torch.testing.assert_close(expected, found, rtol=1e-9, atol=1e-11)


def gradients_of(field, options):
    y0 = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    solution = solve(field, y0, times(1, 0.2), **{"atol": 1e-3, **options})
    return torch.autograd.grad(solution.ys.pow(2).sum(), [y0, *field.parameters()])


def test_second_derivatives_go_through_a_compiled_solve(plain):
    hessians = []
    for how in ("none", "step"):
        y0 = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)  # the shape of `gradients_of`: the same graphs
        loss = solve(plain, y0, times(0, 1), method="midpoint", num_steps=2, compile=how).ys[-1].pow(2).sum()
        (grad,) = torch.autograd.grad(loss, y0, create_graph=True)
        hessians.append(torch.autograd.grad(grad.sum(), y0)[0])
    torch.testing.assert_close(*hessians, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("without_machine_code")
def test_many_vector_fields_do_not_use_up_one_limit():
    counters.clear()
    layer, y0 = nn.Linear(3, 3, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    with torch._dynamo.config.patch(recompile_limit=2), torch.no_grad():
        for function in (Swirl(), Swirl(), Swirl(), *(lambda t, y, n=n: torch.tanh(n * layer(y)) for n in range(3))):
            solve(function, y0, times(0, 1), method="euler", compile="step")
    assert counters["unimplemented"] == {}
    assert counters["frames"]["ok"] == counters["frames"]["total"] >= 6


def test_without_a_compiler_one_line_says_so_and_nothing_else_changes(begin, tmp_path):
    process = begin(tmp_path, "without_compiler")
    said = process.communicate()[1]
    assert process.returncode == 0, said
    lines = [line for line in said.splitlines() if "compile has no effect" in line]
    assert len(lines) == 1
    assert lines[0].startswith("compile has no effect: torch.compile does not work on this machine (")


@pytest.mark.usefixtures("without_machine_code")
def test_a_tuple_state_is_compiled_once():
    field = Swirl()
    start = (torch.ones(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64))

    def pair(t, state):
        return field(t, state[0]), state[0]

    with torch.no_grad():
        first = solve(pair, start, times(0, 1), method="euler", num_steps=2, compile="step")
        counters.clear()
        second = solve(pair, start, times(0, 1), method="euler", num_steps=2, compile="step")
    assert counters["stats"].get("unique_graphs", 0) == 0
    assert all(torch.equal(one, other) for one, other in zip(first.ys, second.ys, strict=True))


def test_a_compiled_vector_field_with_an_encoder_is_evaluated_as_it_is_and_says_so(encoded, caplog):
    counters.clear()
    (expected, grads), (solution, found) = (solved(encoded, compile=how) for how in ("none", "vector_field"))
    pairs = zip([expected.ys, *grads], [solution.ys, *found], strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert counters["stats"].get("unique_graphs", 0) == 0
    assert caplog.text.count('compile="vector_field" has no effect where the vector field uses a tensor that was') == 1
